"""Redaction: what must never be stored is replaced, and ordinary settings of a training are left alone."""

from __future__ import annotations

import time

import pytest

from mltrack.store.client.secrets import (
    holds_secret,
    looks_secret,
    looks_secret_file,
    redact_command,
    redact_text,
    redact_url,
)

HF = "hf_" + "abcDEF1234567890ghij"
GITHUB = "ghp_" + "a1B2" * 9
OPENAI = "sk-proj-" + "AbC1" * 8 + "-x_Y"
ANTHROPIC = "sk-ant-api03-" + "Zz9_" * 8
AWS = "AKIA" + "IOSFODNN7EXAMPLE"
SLACK = "xoxb-" + "123456789012-abcdefABCDEF"
JWT = "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "abcDEF123"


@pytest.mark.parametrize(
    ("argv", "stored"),
    [
        (["t.py", "--api-key", "hunter2"], ["t.py", "--api-key", "***"]),
        (["t.py", "--token=hunter22"], ["t.py", "--token=***"]),
        (["env", "PASSWORD=hunter2", "t.py"], ["env", "PASSWORD=***", "t.py"]),
        (["t.py", "--password", "-x9"], ["t.py", "--password", "***"]),
        (["t.py", "--wandbApiKey=q"], ["t.py", "--wandbApiKey=***"]),
        (["t.py", "++logger.api_key=q"], ["t.py", "++logger.api_key=***"]),
        (["t.py", "--secret", "--verbose"], ["t.py", "--secret", "--verbose"]),
        (["curl", "-u", "me:pw"], ["curl", "-u", "***"]),
        (
            ["bash", "-c", "export PGPASSWORD='a b'; t.py --hf-token abcdef12 --lr 1"],
            ["bash", "-c", "export PGPASSWORD='***'; t.py --hf-token *** --lr 1"],
        ),
        (["curl", "-H", "Authorization: Bearer abcdefgh1"], ["curl", "-H", "Authorization: Bearer ***"]),
        (["t.py", "--db", "postgresql://u:p@ss@h/db"], ["t.py", "--db", "postgresql://h/db"]),
        (["t.py", "--db=postgresql://u:p@h/db"], ["t.py", "--db=postgresql://h/db"]),
    ],
)
def test_a_command_line_keeps_its_shape_and_loses_its_secrets(argv: list[str], stored: list[str]) -> None:
    assert redact_command(argv) == stored


@pytest.mark.parametrize(
    "argv",
    [
        ["t.py", "--pad_token", "<pad>", "--max_tokens", "512", "--tokenizer", "gpt2", "--eos-token=</s>"],
        ["t.py", "--use_auth_token", "true", "--token-file", "/etc/token", "--passes", "3", "--key_dim=64"],
        [
            "t.py",
            "--author",
            "ann",
            "--monkey",
            "x",
            "--keyboard=y",
            "--num_pass=2",
            "secret_dim=128",
            "key=loss",
        ],
        [
            "t.py",
            "--name",
            "sk-learn-random-forest-2024-01-01",
            "--model",
            "hf_bert",
            "--url",
            "http://h/a?page=2",
        ],
        ["docker", "run", "-u", "1000:1000", "-p", "80:80", "image", "SSH_AUTH_SOCK=/tmp/x", "PWD=/home/ann"],
    ],
)
def test_ordinary_settings_are_stored_as_they_are(argv: list[str]) -> None:
    assert redact_command(argv) == argv


@pytest.mark.parametrize("token", [HF, GITHUB, OPENAI, ANTHROPIC, AWS, SLACK, JWT])
def test_a_token_is_known_by_its_shape(token: str) -> None:
    for text in (token, f"login with {token} failed", f'{{"x":"{token}"}}', f"--x={token}"):
        shown = redact_text(text)
        assert token[8:] not in shown and "***" in shown
        assert token[8:] not in redact_command(["t.py", text])[1]
    assert looks_secret("anything", token)
    assert holds_secret(b"x = '" + token.encode() + b"'\n")


def test_names_of_settings() -> None:
    for (
        name
    ) in "PASSWORD api_key WANDB_API_KEY AWS_SECRET_ACCESS_KEY AWS_ACCESS_KEY_ID HF_TOKEN db-pass".split():
        assert looks_secret(name), name
    for (
        name
    ) in "PATH lr tokens tokenizer pad_token max_new_tokens PWD OLDPWD keys sort_key passes author".split():
        assert not looks_secret(name), name
    assert not looks_secret("use_token", "true")
    assert looks_secret("password", "x") and not looks_secret("password", "none")
    assert looks_secret("url", "https://me:pw@host/")


def test_urls_lose_userinfo_and_signed_fields_only() -> None:
    assert redact_url("https://me:pw@github.com/a/b.git") == "https://github.com/a/b.git"
    assert redact_url("https://x-access-token@github.com/a") == "https://github.com/a"
    assert redact_url("git@github.com:a/b.git") == "git@github.com:a/b.git"
    assert redact_url("ssh://git@host:22/a") == "ssh://host:22/a"
    assert redact_url("/data/repo.git") == "/data/repo.git"
    assert redact_url("https://h/x?api_key=abc&page=2#top") == "https://h/x?api_key=***&page=2#top"
    assert redact_url("https://hooks.slack.com/services/T1/B2/abc") == "https://hooks.slack.com/services/***"
    assert redact_url("s3://bucket/key/path") == "s3://bucket/key/path"


def test_log_lines_lose_secrets_and_keep_prose() -> None:
    assert redact_text("fatal: could not read https://me:pw@h/x") == "fatal: could not read https://***@h/x"
    assert redact_text('{"password": "a b", "n": 1}') == '{"password": "***", "n": 1}'
    assert redact_text("url=https://h/?token=abcd1234x ok") == "url=https://h/?token=*** ok"
    for line in (
        "epoch 3 loss=0.1 tokens/s: 1234.5",
        "token: the",
        "mail ann@host: key = val",
        "a -> b :: c",
        "",
    ):
        assert redact_text(line) == line


def test_secret_files_by_name() -> None:
    for (
        path
    ) in ".env .env.local a/prod.env x.pem id_rsa .aws/config my_credentials.json secrets.yaml token".split():
        assert looks_secret_file(path), path
    for path in "train.py id_rsa.pub .env.example secrets.py tokens.json environment.yml keyboard.py".split():
        assert not looks_secret_file(path), path


def test_private_key_blocks() -> None:
    assert holds_secret(b"x\n-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert holds_secret(b"-----BEGIN PRIVATE KEY-----")
    assert not holds_secret(b"-----BEGIN PUBLIC KEY-----")


@pytest.mark.parametrize(
    "text",
    [
        "pip install --index-url https://ann:hunter2@packages.example.org/simple",
        "DATABASE = 'postgresql+psycopg://ann:p:@ss@db:5432/runs'",
        "redis://:hunter2@10.0.0.1",
        "amqp://ann:q@[::1]:5672/",
        "git clone https://0123456789abcdef0123456789abcdef01234567@git.example.org/a.git",
    ],
)
def test_a_file_with_a_password_in_a_url_is_seen(text: str) -> None:
    assert holds_secret(text.encode())
    assert holds_secret(b"\0" * ((1 << 14) - 20) + text.encode()), "also where two steps of the scan meet"


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://$USER:$PASSWORD@host/db",
        'f"https://{user}:{password}@host"',
        "https://user:%s@host",
        "https://user:<password>@host",
        "https://user:***@host",
        "ssh://git@host/a.git",
        "git@host:a/b.git",
        "http://host:8080/a@b",
        "http://host:8080?at=a@b",
        "https://host/@scope/package",
        "mailto://someone@example.org",
    ],
)
def test_a_url_that_holds_no_password_is_not_one(text: str) -> None:
    assert not holds_secret(text.encode())


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "a_",
        "sk-",
        "-sk-abcd",
        "key = ",
        "://",
        "-eyJ",
        'pass="\\"',
        "bearer ",
        "SG.",
        "--key",
        "--token ",
        "@:/",
    ],
)
def test_hostile_text_costs_its_length_not_its_square(piece: str) -> None:
    text = piece * (500_000 // len(piece)) + " pass= ://@"
    started = time.process_time()
    redact_text(text)
    redact_url(text)
    holds_secret(text.encode())
    assert time.process_time() - started < 10
