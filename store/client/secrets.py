"""What must never be stored: passwords, tokens and keys in commands, URLs, settings, logs and files.

Names decide first (``--password X``, ``API_KEY=X``), then shapes that only tokens have (``hf_...``, ``AKIA...``).
What is found is replaced by ``***``, so that a reader sees that something was there. Patterns are compiled on first
use, because ``import mltrack`` has a CPU budget.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from collections.abc import Sequence

REDACTED = "***"
GIVEN = "MLTRACK_SECRETS"
"""The variable that tells a launched job which of its arguments are secrets (a JSON list): in its own argv they have no names."""
GIVEN_LENGTH = 6
"""Shorter ones would be found everywhere."""

# Any value of a setting with such a name is a secret.
_SECRET_WORDS = frozenset(
    (
        "password passwd passphrase pwd secret secrets credential credentials apikey authtoken accesstoken passcode "
        "bearer"
    ).split()
)
_SECRET_ENDINGS = ("password", "passwd", "passphrase", "apikey", "authtoken", "accesstoken", "secretkey")
_SECRET_PAIRS = frozenset(
    f"{first} key".strip()
    for first in "api access private secret auth account signing encryption master ssh license shared storage".split()
) | {"access token", "auth token", "api token", "bearer token", "session token", "refresh token", "id token"}
# These also occur in machine learning (pad_token, two_pass), so that short, plain or numeric values are left alone.
_AMBIGUOUS_WORDS = frozenset({"token", "pass", "pat"})
_VOCABULARY = frozenset(
    "pad eos bos cls sep unk mask special class stop end start image audio video prompt user assistant system boi eoi "
    "next first last max min num per trigger register forced decoder additional fim new added target source".split()
)
# The value is where the secret lies, not the secret.
_POINTERS = frozenset(
    "file path dir folder name length len size count min max env var id url uri type format policy limit ttl".split()
)
_PLAIN_VALUES = frozenset(
    {"", "true", "false", "yes", "no", "on", "off", "none", "null", "auto", "default", REDACTED}
)

# (what to keep of the token, what follows). Lengths are below the real ones and above those of ordinary names.
_TOKENS = (
    (r"hf_", r"[A-Za-z0-9]{16,}"),
    (r"gh[opsur]_", r"[A-Za-z0-9]{16,}"),
    (r"github_pat_", r"\w{16,}"),
    (r"glpat-", r"[\w-]{16,}"),
    (r"sk-(?:[a-z0-9]{2,12}-){0,3}", r"(?=\w{0,80}[0-9A-Z])\w{16,}+[\w-]*"),
    (r"[sr]k_(?:live|test)_", r"[A-Za-z0-9]{16,}"),
    (r"A(?:KIA|SIA)", r"[A-Z0-9]{16}"),
    (r"xox[abeoprs]-", r"[\w.-]{10,}"),
    (r"xapp-", r"[\w-]{16,}"),
    (r"AIza", r"[\w-]{35}"),
    (r"ya29\.", r"[\w-]{16,}"),
    (r"npm_", r"[A-Za-z0-9]{30,}"),
    (r"pypi-Ag", r"[\w-]{30,}"),
    (r"dop_v1_", r"[0-9a-f]{32,}"),
    (r"nvapi-", r"[\w-]{16,}"),
    (r"gsk_", r"[A-Za-z0-9]{20,}"),
    (r"r8_", r"[A-Za-z0-9]{30,}"),
    (r"wandb_v1_", r"\w{16,}"),
    (r"SG\.", r"[\w-]{16,}\.[\w-]{16,}"),
    (r"tskey-", r"[\w-]{16,}"),
    # The look-behind makes a line of a million of these cost its length, not its square.
    (r"(?<![\w-])eyJ", r"[\w-]{10,}+\.eyJ[\w-]{8,}\.[\w-]*"),
)
# No token can be in a line without one of these: a check that costs a tenth of the pattern.
_TOKEN_HINTS = tuple(
    (
        "hf_ ghp_ gho_ ghs_ ghu_ ghr_ github_pat_ glpat- sk- k_live_ k_test_ AKIA ASIA xox xapp- AIza ya29. npm_ "
        "pypi-Ag dop_v1_ nvapi- gsk_ r8_ wandb_v1_ SG. tskey- eyJ -----BEGIN"
    ).split()
)
_NAME_HINTS = ("pass", "pwd", "secret", "token", "key", "credential", "auth", "bearer", "sig")
_KEY_BLOCK = r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"

_SCAN_BYTES = 1 << 14
_SCAN_OVERLAP = 1024

_SECRET_FILES = frozenset(
    ".env .netrc _netrc .pypirc .npmrc .pgpass .my.cnf .htpasswd .dockercfg .git-credentials .envrc id_rsa id_dsa "
    "id_ecdsa id_ed25519 kaggle.json kubeconfig token .token token.txt hf_token api_key api_key.txt".split()
)
_SECRET_SUFFIXES = tuple(".pem .key .p12 .pfx .jks .keystore .kdbx .ppk .ovpn .env .p8 .pkcs12".split())
_SECRET_STARTS = (".env.", "id_rsa", "id_ed25519")
_SECRET_FOLDERS = frozenset({".ssh", ".aws", ".gnupg", ".kube", ".docker", ".azure", ".gcloud"})
_EXAMPLE_ENDINGS = (".example", ".sample", ".template", ".dist")
_DATA_SUFFIXES = frozenset(" .json .yaml .yml .toml .ini .cfg .conf .txt .env .csv .enc .bak".split(" "))


@lru_cache(1)
def _token_pattern() -> re.Pattern[str]:
    import re

    tokens = "|".join(f"(?:{head}){rest}" for head, rest in _TOKENS)
    return re.compile(rf"(?<![A-Za-z0-9])(?:{tokens})")


@lru_cache(1)
def _token_head() -> re.Pattern[str]:
    import re

    return re.compile("|".join(head for head, _ in _TOKENS))


@lru_cache(1)
def _file_pattern() -> re.Pattern[bytes]:
    import re

    return re.compile(rf"{_KEY_BLOCK}|{_token_pattern().pattern}".encode())


@lru_cache(1)
def _login_pattern() -> re.Pattern[bytes]:
    import re

    # ://user:password@host, or ://long-token@host. What a program fills in (${PW}, {pw}, %s, <pw>, ***) is no password.
    filled = rb"[$%{<*\[]|x{3,}@"
    plain = rb"[^\s/?#'\"<>:@]"
    return re.compile(
        rb"://(?:%b{0,200}+:(?!%b)[^\s/?#'\"<>]{1,500}|(?=\w{0,200}[0-9])[\w-]{20,200}+)@[\w\[]"
        % (plain, filled)
    )


@lru_cache(1)
def _url_pattern() -> re.Pattern[str]:
    import re

    # scheme://userinfo@ ; userinfo may itself hold an '@', so it ends at the last one before the path.
    return re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,30}://)([^\s/?#'\"<>]+)@")


# Everything here is possessive or bounded: a line of a megabyte must cost its length, not its square.
@lru_cache(1)
def _name_pattern() -> re.Pattern[str]:
    import re

    # name=  name:  "name":  --name ; the name is judged in Python.
    return re.compile(
        r"(?<![\w.-])(?P<name>(?P<option>--)?-?[A-Za-z_][\w.-]{1,79}+)"
        r"(?:['\"]?[ \t]{0,4}[=:][ \t]{0,4}|(?(option)[ \t]{1,4}|(?!)))"
    )


@lru_cache(1)
def _value_pattern() -> re.Pattern[str]:
    import re

    return re.compile(r"\"(?:[^\"\\\n]|\\.)*+\"?|'(?:[^'\\\n]|\\.)*+'?|[^\s,;&'\"]++")


@lru_cache(1)
def _scheme_pattern() -> re.Pattern[str]:
    import re

    header = r"\b((?:proxy-)?authorization['\"]?\s{0,4}[:=]\s{0,4}['\"]?)?"
    return re.compile(rf"(?i){header}\b(bearer|basic|token)(\s{{1,4}})([\w.~+/=-]{{8,}})")


@lru_cache(2048)
def _words(name: str) -> tuple[str, ...]:
    """``--wandbApiKey`` -> ("wandb", "api", "key")."""
    import re

    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)
    return tuple(re.split(r"[^a-z0-9]+", spaced.lower().strip("-_. ")))


@lru_cache(2048)
def _name_verdict(name: str) -> str:
    """ "secret", "ambiguous" (the value decides) or "plain"."""
    words = _words(name)
    if not words or words == ("pwd",) or words[-1] in _POINTERS and words[-2:] != ("key", "id"):
        return "plain"
    if words[-1] in {"hash", "tokens", "tokenizer"}:
        return "plain"
    pairs = {f"{first} {second}" for first, second in zip(words, words[1:], strict=False)}
    if words[-1] in _SECRET_WORDS or words[-1].endswith(_SECRET_ENDINGS) or pairs & _SECRET_PAIRS:
        return "secret"
    if not _SECRET_WORDS.isdisjoint(words):
        return "ambiguous"  # password_prod, but also secret_dim
    if words[-1] in _AMBIGUOUS_WORDS and _VOCABULARY.isdisjoint(words):
        return "ambiguous"
    if words[-1] in {"signature", "sig"} or words[-1] == "auth" and len(words) > 1:
        return "ambiguous"
    return "plain"


def _is_plain(value: str) -> bool:
    """A switch, a small number or a short word: what a setting called ``token`` holds when it is not a credential."""
    text = value.strip().strip("'\"")
    if text.lower() in _PLAIN_VALUES or len(text) < 5:
        return True
    return text.replace(".", "", 1).isdigit() and len(text) < 8


def looks_secret(name: str, value: str = "") -> bool:
    """True when the value of a setting or variable of this name must not be stored.

    Without a value only the name is judged; with one, a token's shape is enough and switches (``use_token=true``) pass.
    """
    verdict = _name_verdict(name[-200:])
    if verdict == "plain":
        return bool(value) and _has_token(value)
    if verdict == "ambiguous":
        return not value or not _is_plain(value)
    return not value or value.strip().lower() not in _PLAIN_VALUES


def looks_secret_file(path: str) -> bool:
    """True when a file's name says that it holds credentials: ``.env``, ``*.pem``, ``id_rsa``, ``*credentials*``."""
    parts = path.lower().replace("\\", "/").split("/")
    name = parts[-1]
    if not _SECRET_FOLDERS.isdisjoint(parts[:-1]):
        return True
    if name.endswith(".pub") or name.endswith(_EXAMPLE_ENDINGS):
        return False
    if name in _SECRET_FILES or name.endswith(_SECRET_SUFFIXES) or name.startswith(_SECRET_STARTS):
        return True
    if any(part in name for part in ("credential", "service-account", "service_account", "private_key")):
        return True
    stem, dot, suffix = name.rpartition(".")
    # secrets.yaml holds secrets; secrets.py is a module about them.
    return "secret" in name and (dot + suffix if stem else "") in _DATA_SUFFIXES


def holds_secret(data: bytes) -> bool:
    """True when the bytes hold a private key block, a token of a known shape, or a URL with a password in it."""
    patterns = [_file_pattern()]
    if b"://" in data and b"@" in data:
        patterns.append(_login_pattern())
    # In steps, because a search keeps the GIL and the training may be waiting for it; they overlap by more than any
    # pattern needs to be recognised.
    return any(
        pattern.search(data, start, start + _SCAN_BYTES + _SCAN_OVERLAP)
        for start in range(0, max(1, len(data)), _SCAN_BYTES)
        for pattern in patterns
    )


def redact_url(url: str) -> str:
    """The URL without userinfo and without the values of secret-named query fields; ``git@host:path`` stays whole."""
    if "://" not in url:
        return redact_text(url) if "@" in url and ":" in url.partition("@")[0] else _redact_tokens(url)
    scheme, _, rest = url.partition("://")
    ends = [index for index in (rest.find(mark) for mark in "/?#") if index >= 0]
    end = min(ends, default=len(rest))
    authority, tail = rest[:end], rest[end:]
    authority = authority.rpartition("@")[2]
    head, mark, query = tail.partition("?")
    if head.startswith("/services/") and authority.startswith("hooks."):
        head = "/services/" + REDACTED
    if mark:
        query, hash_mark, fragment = query.partition("#")
        fields = []
        for field in query.split("&"):
            name, equals, value = field.partition("=")
            secret = equals and (looks_secret(name, value) or _name_verdict(name) == "ambiguous")
            fields.append(name + equals + (REDACTED if secret else value))
        query = "&".join(fields) + hash_mark + fragment
    return _redact_tokens(f"{scheme}://{authority}{head}{mark}{query}")


def without_password(where: str) -> str:
    """The address of a store, or its folder, as it may stand on a screen: who is asked for stays, since it is part of what to type."""
    scheme, mark, rest = where.partition("://")
    if not mark:
        return where
    user = rest.partition("/")[0].rpartition("@")[0].partition(":")[0]
    return redact_url(where).replace(mark, f"{mark}{user}@" if user else mark, 1)


@lru_cache(1)
def _given() -> tuple[str, ...]:
    """Secrets that this process was launched with, the longest first."""
    import json
    import os

    try:
        values = json.loads(os.environ.get(GIVEN, "[]"))
    except ValueError:
        return ()  # somebody else's variable of that name; a training goes on without
    found = {value for value in values if isinstance(value, str)} if isinstance(values, list) else set()
    return tuple(sorted((value for value in found if len(value) >= GIVEN_LENGTH), key=len, reverse=True))


def _without_given(text: str) -> str:
    for value in _given():
        text = text.replace(value, REDACTED)
    return text


def keep_out(given: str) -> None:
    """Take the value of ``GIVEN`` for a job that this process looks after: what the job was given is kept out here, too."""
    import os

    if given:
        os.environ[GIVEN] = given
        _given.cache_clear()


def redact_text(text: str) -> str:
    """Any text (log line, error, command) with URLs' userinfo, secret-named values, known tokens and given secrets as ``***``."""
    text = _without_given(text)
    if "://" in text and "@" in text:
        text = _url_pattern().sub(rf"\1{REDACTED}@", text)
    if "=" in text or ":" in text or "--" in text:
        lowered = text.lower()
        if any(hint in lowered for hint in _NAME_HINTS):
            text = _scheme_pattern().sub(_hide_scheme, text)
            text = _redact_assignments(text)
    return _redact_tokens(text)


def redact_setting(name: str, value: str) -> str:
    """The value of a param as it may be stored: ``***`` when the name says what it is, else without the secrets in it."""
    return (
        REDACTED
        if value and looks_secret(name, value) and _name_verdict(name[-200:]) != "plain"
        else redact_text(value)
    )


def redact_command(argv: Sequence[str]) -> list[str]:
    """A command line as it may be stored: one item per argument, secrets as ``***``."""
    shown: list[str] = []
    program = argv[0].rpartition("/")[2] if argv else ""
    pending = ""  # the secret-named option whose value is the next argument
    for argument in argv:
        option = pending
        pending = ""
        if option and not _is_option(argument):
            shown.append(_hide_value(program, option, argument))
            continue
        name, equals, value = argument.partition("=")
        if equals and _is_name(name):
            # name=https://host/x?y=1 keeps its address; name=secret does not.
            if looks_secret(name, value) and _name_verdict(name) != "plain":
                shown.append(f"{name}={REDACTED}")
            else:
                shown.append(f"{name}={_redact_argument(value)}")
            continue
        if argument.startswith("-") and not equals:
            if _name_verdict(argument) != "plain" or (program, argument) in _SECRET_OPTIONS:
                pending = argument
        shown.append(_redact_argument(argument))
    return shown


# Options of well-known programs whose names do not tell.
_SECRET_OPTIONS = frozenset(
    {("curl", "-u"), ("curl", "--user"), ("curl", "--proxy-user"), ("curl", "-U"), ("sshpass", "-p")}
)


def _hide_value(program: str, option: str, value: str) -> str:
    if (program, option) in _SECRET_OPTIONS or looks_secret(option, value):
        return REDACTED
    return _redact_argument(value)


def _redact_argument(text: str) -> str:
    text = _without_given(text)
    if "://" in text and not any(space in text for space in " \t\n'\""):
        return redact_url(text)
    return redact_text(text)


def _is_name(text: str) -> bool:
    return 0 < len(text) <= 200 and all(character.isalnum() or character in "-_.+/" for character in text)


def _is_option(text: str) -> bool:
    return text.startswith("--") and len(text) > 2 or len(text) == 2 and text[0] == "-" and text[1].isalpha()


def _has_token(text: str) -> bool:
    if "://" in text and "@" in text and _url_pattern().search(text):
        return True
    return any(hint in text for hint in _TOKEN_HINTS) and holds_secret(text.encode("utf-8", "replace"))


def _redact_tokens(text: str) -> str:
    if not any(hint in text for hint in _TOKEN_HINTS):
        return text
    return _token_pattern().sub(_hide_token, text)


def _hide_token(match: re.Match[str]) -> str:
    head = _token_head().match(match[0])
    return (head[0] if head else "") + REDACTED


def _hide_scheme(match: re.Match[str]) -> str:
    header, scheme, gap, _ = match.groups()
    if header is None and (scheme.lower() != "bearer" or match[4].isalpha()):
        return match[0]  # "token embeddings" in prose
    return f"{header or ''}{scheme}{gap}{REDACTED}"


def _redact_assignments(text: str) -> str:
    names, values = _name_pattern(), _value_pattern()
    kept: list[str] = []
    start = position = 0
    # Only a secret's value is skipped: what follows a plain name may hold the next name (``args: password=x``).
    while found := names.search(text, position):
        position = found.end()
        verdict = _name_verdict(found["name"])
        value = values.match(text, position) if verdict != "plain" else None
        if value is not None and _is_secret_value(verdict, value[0].strip("'\"")):
            quote = value[0][0] if value[0][0] in "'\"" else ""
            closing = quote if len(value[0]) > 1 and value[0][-1] == quote else ""
            kept.append(f"{text[start:position]}{quote}{REDACTED}{closing}")
            start = position = value.end()
    return "".join(kept) + text[start:] if kept else text


def _is_secret_value(verdict: str, value: str) -> bool:
    """In free text, prose such as ``token: the`` is no secret; after ``password:`` anything is."""
    if value.lower() in _PLAIN_VALUES:
        return False
    return verdict == "secret" or not (_is_plain(value) or len(value) < 8 or value.isalpha())
