"""Pure drawing: data and a size go in, text comes out. Nothing here knows Textual, a store or a terminal."""
