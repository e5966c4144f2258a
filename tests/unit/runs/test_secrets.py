"""Secrets on a command line are masked; what training scripts usually take is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.runs.work.secrets import MASK, mask_secrets, mask_variables

# Put together here, so that no scanner takes this file for a leak.
GITHUB = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
HUGGING_FACE = "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH"
AWS = "AKIA" + "IOSFODNN7EXAMPLE"
OPENAI = "sk-" + "proj-Ab12Cd34Ef56Gh78Ij90Kl12Mn34"
SLACK = "xoxb-" + "123456789012-abcdefghijkl"
JWT = "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTYifQ." + "c2lnbmF0dXJlLWhlcmU"
PEM = "-----BEGIN OPENSSH " + "PRIVATE KEY-----\nb3BlbnNzaA==\n-----END OPENSSH " + "PRIVATE KEY-----"
STRIPE = "sk_" + "live_4eC39HqLyjWDarjtT1zdp7dc"
RANDOM = "Zm9vYmFyMTIzNDU2Nzg5MGFiY2RlZg"

MASKED = {
    "password with equals": (["--password=hunter2"], ["--password=***"]),
    "password apart": (["--password", "hunter2"], ["--password", MASK]),
    "password of digits": (["--db-password", "123456"], ["--db-password", MASK]),
    "password with spaces": (["--passphrase=correct horse battery"], ["--passphrase=***"]),
    "one dash": (["-password", "hunter2"], ["-password", MASK]),
    "hydra override": (["db.password=hunter2"], ["db.password=***"]),
    "hydra addition": (["+tracker.api_key=abcdef"], ["+tracker.api_key=***"]),
    "assignment": (["env", "WANDB_API_KEY=0123456789abcdef"], ["env", "WANDB_API_KEY=***"]),
    "camel case": (["--apiKey", "abcdef"], ["--apiKey", MASK]),
    "client secret": (["--client-secret", "abc"], ["--client-secret", MASK]),
    "token": (["--token", "abcdef123"], ["--token", MASK]),
    "token of a service": (["--hub-token=abcdef123"], ["--hub-token=***"]),
    "random key": (["--key", RANDOM], ["--key", MASK]),
    "GitHub": ([f"https://{GITHUB}@github.com/a/b"], [f"https://{MASK}@github.com/a/b"]),
    "Hugging Face": (["--hub", HUGGING_FACE], ["--hub", MASK]),
    "AWS": ([AWS], [MASK]),
    "OpenAI": ([f"--llm={OPENAI}"], [f"--llm={MASK}"]),
    "Slack": ([SLACK], [MASK]),
    "Stripe": ([STRIPE], [MASK]),
    "JSON web token": ([f"x={JWT}"], [f"x={MASK}"]),
    "PEM": ([PEM], [MASK]),
    "PEM cut off": ([PEM[:60]], [MASK]),
    "database address": (["postgresql://ann:pw@host/db"], [f"postgresql://ann:{MASK}@host/db"]),
    "signed address": (["https://h/x?sig=Ab3dEf6hIj9lMn2pQr5t&v=1"], [f"https://h/x?sig={MASK}&v=1"]),
    "token in an address": (["https://h/x?access_token=abcdefgh"], [f"https://h/x?access_token={MASK}"]),
    "header": (["-H", f"Authorization: Bearer {RANDOM}"], ["-H", f"Authorization: Bearer {MASK}"]),
    "shell": (["sh", "-c", "export API_KEY=abc; python t.py"], ["sh", "-c", "export API_KEY=***; python t.py"]),
    "option in a shell": (["sh", "-c", "t --password abc --n 3"], ["sh", "-c", "t --password *** --n 3"]),
    "Python": (["-c", "login(token='abcdefgh')"], ["-c", "login(token='***')"]),
    "JSON": (['{"api_key": "abc", "n": 3}'], ['{"api_key": "***", "n": 3}']),
    "user and password": (["curl", "-u", "bob:swordfish", "h"], ["curl", "-u", "bob:***", "h"]),
    "user and password joined": (["curl", "-ubob:swordfish"], ["curl", "-ubob:***"]),
    "user and password in one": (["t.py", "--user=bob:hunter2"], ["t.py", "--user=bob:***"]),
    "user and password of any program": (["t.py", "-u", "user:s3cret"], ["t.py", "-u", "user:***"]),
    "user with percent": (["smbclient", "-U", "bob%fish", "//h/s"], ["smbclient", "-U", "bob%***", "//h/s"]),
    "mysql": (["mysql", "-u", "root", "-phunter2", "db"], ["mysql", "-u", "root", "-p***", "db"]),
    "mysql in its folder": (["env", "/usr/bin/mysqldump", "-p123"], ["env", "/usr/bin/mysqldump", "-p***"]),
    "sshpass": (["sshpass", "-p", "swordfish", "ssh", "h"], ["sshpass", "-p", MASK, "ssh", "h"]),
    "docker login": (["docker", "login", "-u", "a", "-p", "fish"], ["docker", "login", "-u", "a", "-p", MASK]),
    "short option beside a user": (["t.py", "-u", "ada", "-p", "fish"], ["t.py", "-u", "ada", "-p", MASK]),
    "wandb": (["wandb", "login", "0" * 40], ["wandb", "login", MASK]),
    "redis": (["redis-cli", "-a", "fish", "ping"], ["redis-cli", "-a", MASK, "ping"]),
    "openssl": (["openssl", "enc", "-pass", "pass:fish"], ["openssl", "enc", "-pass", "pass:***"]),
    "short option in a shell": (["sh", "-c", "x; mysql -u r -p'fish' db"], ["sh", "-c", "x; mysql -u r -p*** db"]),
    "pair in a shell": (["bash", "-c", "curl -u 'bob:fish' h"], ["bash", "-c", "curl -u 'bob:***' h"]),
    "token header": (["Authorization: token abc123"], ["Authorization: token ***"]),
    "header without scheme": (["Authorization: abc123def"], ["Authorization: ***"]),
    "header of one word": (["Authorization: Basic Ym9iOmZpc2g="], ["Authorization: Basic ***"]),
    "joined token": (["env", "MYTOKEN=swordfish"], ["env", "MYTOKEN=***"]),
    "joined password": (["--dbpassword", "fish"], ["--dbpassword", MASK]),
    "joined pass": (["env", "ROOTPW=fish"], ["env", "ROOTPW=***"]),
    "pass of an account": (["DB_PASS=123456"], ["DB_PASS=***"]),
    "pass alone": (["--pass", "hunter2"], ["--pass", MASK]),
    "pass of something": (["--grid-pw", "sword-fish7"], ["--grid-pw", MASK]),
    "Azure": (["AccountName=a;AccountKey=" + "Ab1/" * 20 + "=="], [f"AccountName=a;AccountKey={MASK}"]),
}  # fmt: skip

HARMLESS = [
    ["python", "train.py", "--depth", "4", "--lr", "1e-3", "--seed", "42"],
    ["--seed=1234567890123456789"],
    ["--commit", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b"],
    ["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    ["--sha256=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
    ["--data", "/data/secrets/token/password.csv"],
    ["--run-id", "3f2504e0-4f89-41d3-9a0c-0305e82c3301"],
    ["--max-tokens", "2048"],
    ["--max_new_tokens=256"],
    ["--tokenizer", "bert-base-uncased"],
    ["--pad-token", "[PAD]"],
    ["--eos_token", "<|endoftext|>"],
    ["--special-token", "MASKED_VALUE"],
    ["--token-dropout", "0.1"],
    ["--token-type", "subword-bpe"],
    ["--tokens", "corpus-tokens"],
    ["--use-auth-token", "--fp16"],
    ["--use_auth_token", "True"],
    ["--token-file", "credentials.json"],
    ["--password-file", "/run/secrets/db"],
    ["--api-key", "$API_KEY"],
    ["--api-key-env", "OPENAI_API_KEY"],
    ["--secret", "@secret.txt"],
    ["--private-key", "/home/ann/.ssh/id_ed25519"],
    ["--key", "accuracy"],
    ["--sort-key", "validation_accuracy_2024"],
    ["--public-key", RANDOM],
    ["--key", "val/accuracy"],
    ["--auth", "none"],
    ["--session", "morning"],
    ["--name", "sk-learn-first-experiment-2024"],
    ["--name", "task-ask-disk-risk-long-name-here-2024"],
    ["--model", "meta-llama/Llama-2-7b-hf"],
    ["git@github.com:org/repo.git"],
    ["ssh://git@github.com/org/repo.git"],
    ["https://example.org/a?page=2&sort=name"],
    ["s3://bucket/path/with/key=value/part-0001.parquet"],
    ["bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"],
    ["-c", "print('the secret of the token is: nothing')"],
    ["--formula", "y ~ x1 + x2", "--title", "Password strength"],
    ["sh", "-c", "wc -l token password"],
    ["python", "train.py", "-p", "8080"],
    ["python", "train.py", "-p", "fp16"],
    ["python", "-u", "train.py", "-p", "fp16"],
    ["papermill", "in.ipynb", "out.ipynb", "-p", "alpha", "0.5"],
    ["docker", "run", "-u", "1000:1000", "-p", "8080:80", "image"],
    ["docker", "run", "--user", "ada:staff", "image"],
    ["t.py", "--user", "1000:100"],
    ["t.py", "--user=root:root"],
    ["t.py", "-u", "localhost:8080"],
    ["t.py", "-u", "db.example.org:5432"],
    ["t.py", "-u", "12:30:00"],
    ["t.py", "-u", "http://example.org/a:b"],
    ["t.py", "-u", "ada", "-p", "8080"],
    ["mkdir", "-p", "out"],
    ["mysql", "-p"],
    ["mysql", "-u", "ada", "-p$PW"],
    ["sh", "-c", "mkdir -p out && python -u train.py -p fp16"],
    ["--n-pass", "3"],
    ["--pass", "forward"],
    ["--first-pass", "greedy1"],
    ["--bypass", "cache01"],
    ["--lowpass", "butter4"],
    ["--padtoken", "[PAD]x"],
    ["--subtoken", "wordpiece"],
    ["authorization=rbac"],
    ['{"authorization": "rbac"}'],
    ["Authorization: $TOKEN"],
    ["PWD=/home/ada"],
]


@pytest.mark.parametrize("name", MASKED)
def test_is_masked_and_reported(name: str) -> None:
    argv, expected = MASKED[name]
    masked, found = mask_secrets(argv)
    assert list(masked) == expected
    assert len(found) == 1
    position = int(found[0].where.removeprefix("argument "))
    assert masked[position] != argv[position]


@pytest.mark.parametrize("argv", HARMLESS, ids=" ".join)
def test_is_left_alone(argv: list[str]) -> None:
    assert mask_secrets(argv) == (tuple(argv), ())


def test_what_is_reported_names_the_place_and_not_the_secret() -> None:
    _, found = mask_secrets(["python", "t.py", "--token", "abcdef123", GITHUB])
    assert [str(secret) for secret in found] == [
        "the value of --token (argument 3)",
        "argument 4 (GitHub token)",
    ]


def test_variables_are_masked_by_name_and_by_form() -> None:
    variables = {
        "HOME": "/root",
        "WANDB_API_KEY": "0123456789abcdef0123456789abcdef01234567",
        "DATABASE_URL": "mysql://a:b@h/d",
        "PYTHONHASHSEED": "0",
        "NOTE": f"use {HUGGING_FACE}",
        "TOKENIZERS_PARALLELISM": "false",
        "SSH_AUTH_SOCK": "/tmp/ssh-x/agent.1",
    }
    masked, found = mask_variables(variables)
    assert masked == {
        **variables,
        "WANDB_API_KEY": MASK,
        "DATABASE_URL": f"mysql://a:{MASK}@h/d",
        "NOTE": f"use {MASK}",
    }
    assert [secret.where for secret in found] == [
        "variable WANDB_API_KEY",
        "variable DATABASE_URL",
        "variable NOTE",
    ]


@given(st.lists(st.text(max_size=60), max_size=6))
def test_masking_is_total_and_stable(argv: list[str]) -> None:
    masked, found = mask_secrets(argv)
    assert len(masked) == len(argv)
    assert mask_secrets(masked) == (masked, ())
    assert bool(found) == (masked != tuple(argv))
