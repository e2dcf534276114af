#!/usr/bin/env bash
# monai 1.6.1 (torch 2.13.0, numpy 2.4.6): log lines go to the standard output of the import, and nowhere else.
#
# Behaviour: a logger of MONAI gets a handler of its own when its module is imported. It holds the sys.stdout of that
# moment, and the logger does not propagate: lines of level INFO stand between a program's results, a redirection set up
# later does not hold them back, and handlers of the root logger (logging.basicConfig, pytest's caplog) get none.
# A good guess: as other libraries, MONAI hands its records to whatever the program has configured, and prints nothing to
# standard output by itself.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6 monai==1.6.1 tqdm
cd "$work"
cat > program.py <<'PY'
import contextlib
import hashlib
import io
import logging
import pathlib

logging.basicConfig(filename="log.txt", level=logging.INFO)
from monai.apps import check_hash

logging.getLogger("another.library").info("a line of another library")
program = pathlib.Path("program.py")
with contextlib.redirect_stdout(io.StringIO()):
    check_hash(program, val=hashlib.sha256(program.read_bytes()).hexdigest(), hash_type="sha256")
print('{"result": 1}')
PY
"$work/venv/bin/python" program.py > out.txt 2> /dev/null
echo "standard output:"; cat out.txt
echo "log.txt:"; cat log.txt
grep -q "another library" log.txt || { echo "the log is not set up"; exit 1; }
grep -q "INFO - Verified" out.txt || { echo "this has changed: nothing on standard output"; exit 1; }
! grep -q "Verified" log.txt || { echo "this has changed: the root logger has it"; exit 1; }
