"""Signatures and npm's implementation of Standard Webhooks, where there is Node."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from streams.webhooks.signatures import key_of, new_secret, standard_headers, verify

HERE = Path(__file__).parent / "npm"
BODY = json.dumps({"type": "status.updated", "data": {"text": "전달됨 — ✓"}}, ensure_ascii=False).encode()


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with npm's packages, as they are locked."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("there is no Node here")
    where = tmp_path_factory.mktemp("npm")
    for name in ("package.json", "package-lock.json", "others.mjs"):
        shutil.copy(HERE / name, where)
    subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit"], cwd=where, check=True, capture_output=True
    )
    return where


def asked(where: Path, webhooks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    lines = "".join(json.dumps(webhook) + "\n" for webhook in webhooks)
    done = subprocess.run(
        ["node", "others.mjs"], cwd=where, input=lines, check=True, capture_output=True, text=True
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_npms_implementation_and_ours_verify_each_other(others: Path) -> None:
    """With one secret, while another takes its place, and not with one that signs no longer."""
    # it looks at the machine's clock itself
    at = int(time.time())
    old, new = (new_secret(bytes([n]) * 32) for n in (1, 2))
    cases = [([old], old), ([new, old], old), ([new, old], new), ([new], new), ([new], old)]
    webhooks = [
        {
            "secret": secret,
            "headers": standard_headers([key_of(live) for live in signing], f"e-{number}", at, BODY),
            "body": BODY.decode(),
        }
        for number, (signing, secret) in enumerate(cases)
    ]

    told = asked(others, webhooks)

    assert [one["verified"] for one in told] == [True, True, True, True, False]
    for webhook, one in zip(webhooks, told, strict=True):
        theirs = webhook["headers"] | {"webhook-signature": one["signature"]}
        assert verify([key_of(webhook["secret"])], theirs, BODY, at) == webhook["headers"]["webhook-id"]
