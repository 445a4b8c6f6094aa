"""Ask whether a dependency has known vulnerabilities, and whether a secret lies in the repository.

``pip install '.[audit]'``, then ``python tools/audit.py``. It needs the network. What it cannot ask it says, and
returns 1 as if it had found something: nothing is taken for clean that nobody looked at.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def main() -> int:
    """Run both audits; return 1 if one of them found something, or could not look."""
    found = [*_vulnerabilities(), *_secrets()]
    sys.stdout.write("\n".join(found or ["nothing found"]) + "\n")
    return 1 if found else 0


def _vulnerabilities() -> list[str]:
    """Ask the index of packages about everything that is installed here."""
    done = _run(BIN / "pip-audit", "--local", "--skip-editable", "--format=json", "--progress-spinner=off")
    if not done.stdout:
        return ["dependencies: not audited: " + done.stderr.strip().rpartition("\n")[2]]
    packages = json.loads(done.stdout)["dependencies"]
    skipped = [each["name"] for each in packages if "skip_reason" in each and each["name"] != "alfwatchd"]
    lines = [
        f"{each['name']} {each['version']}: {vulnerability['id']}, mended in {vulnerability['fix_versions']}"
        for each in packages
        for vulnerability in each.get("vulns", [])
    ]
    if skipped:
        lines.append(f"dependencies: {len(skipped)} of {len(packages)} not audited: the index does not tell about them")
    return lines


def _secrets() -> list[str]:
    """Look at every file that is in the repository. A line that is no secret says so: ``pragma: allowlist secret``."""
    files = _run("git", "ls-files").stdout.splitlines()
    # Paths and texts as ONE has them: thousands of names, all made up.
    done = _run(BIN / "detect-secrets-hook", "--exclude-files=^tests/data/", *files)
    return [] if done.returncode == 0 else [done.stdout + done.stderr]


def _run(*command: object) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        return subprocess.CompletedProcess([], 1, "", f"{error.filename} is not installed: pip install '.[audit]'")


if __name__ == "__main__":
    sys.exit(main())
