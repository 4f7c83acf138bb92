#!/usr/bin/env bash
# Make benchmarks/peers/.venvs/<peer> for every peer named, or for all of them; see --help.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: benchmarks/peers/setup.sh [--python PYTHON] [PEER...]

Installs each peer by its requirements-<peer>.txt into an environment of its own, benchmarks/peers/.venvs/<peer>. torch,
NumPy, OpenCV and etnet are those of PYTHON, so that both sides of a comparison run on the same ones: the environment of
--python, else of $PYTHON, else .venv of this repository (make venv). Quick where nothing changed. A peer that cannot be
installed is said in one line and does not stop the others.

Exit codes: 0 all are there, 1 some are not, 2 wrong usage, 4 PYTHON cannot be used.
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
requirements=${ETNET_PEER_REQUIREMENTS:-$here}
environments=${ETNET_PEER_VENVS:-$here/.venvs}
python=${PYTHON:-$here/../../.venv/bin/python}

peers=()
while (($#)); do
    case $1 in
    --python) [[ $# -ge 2 ]] || { usage >&2; exit 2; }; python=$2; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "setup.sh: there is no option $1; see --help" >&2; exit 2 ;;
    *) peers+=("$1"); shift ;;
    esac
done
if ((${#peers[@]} == 0)); then
    for file in "$requirements"/requirements-*.txt; do
        peer=${file##*/requirements-}
        peers+=("${peer%.txt}")
    done
fi
for peer in "${peers[@]}"; do
    [[ -f $requirements/requirements-$peer.txt ]] || { echo "setup.sh: there is no peer $peer; see $requirements" >&2; exit 2; }
done

has='import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, ("cv2", "etnet", "numpy", "packaging", "pip", "torch"))))'
if ! "$python" -c "$has" 2>/dev/null; then
    echo "setup.sh: $python lacks torch, NumPy, OpenCV, etnet or pip; run make venv, or name another with --python" >&2
    exit 4
fi

failed=0
for peer in "${peers[@]}"; do
    "$python" "$here/peer_environment.py" "$environments/$peer" "$requirements/requirements-$peer.txt" || failed=1
done
exit $failed
