"""Names for runs nobody named: easy to say, easy to type, rarely equal."""

from __future__ import annotations

import os

_QUALITIES = (
    "able bold brisk calm clear cool crisp deft dim eager fair fast fine firm fond free glad gold grand keen kind late lean "
    "light lone lucid mild neat new nice noble numb old pale plain prime proud pure quick quiet rapid rare ripe sage sharp "
    "shy slim sly smart snug soft solid spry stark still sunny swift tall tame tidy true vast warm wild wise"
).split()
_ANIMALS = (
    "ant ape asp auk bat bear bee boar bug carp cat clam cod colt crab crow deer dog dove duck eel elk emu ewe fawn finch "
    "fish fly fox frog gnat goat goose gull hare hawk hen heron ibis jay kite koi lamb lark lion lynx mink mole moth mouse "
    "mule newt orca owl ox perch pig pike quail ram rat raven rook seal shrew slug snail stoat swan tern toad trout vole "
    "wasp wolf wren yak"
).split()


def run_name() -> str:
    """A random name such as ``sage-owl-41``."""
    draw = int.from_bytes(os.urandom(6), "big")
    draw, number = divmod(draw, 100)
    draw, quality = divmod(draw, len(_QUALITIES))
    return f"{_QUALITIES[quality]}-{_ANIMALS[draw % len(_ANIMALS)]}-{number:02d}"
