# Print the first of the given programs that is Python 3.11 or newer and can make virtual environments; without
# arguments, look for python3 and then for each version by name. Where there is none, say why and fail.
[ $# -gt 0 ] || set -- python3 python3.14 python3.13 python3.12 python3.11

found=
for program; do
    version=$("$program" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    if ! "$program" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        found="$found
  $program is Python $version, which is too old"
    elif ! "$program" -c 'import ensurepip, venv' 2>/dev/null; then
        found="$found
  $program is Python $version without the modules venv and ensurepip: on Debian and Ubuntu, apt-get install python$version-venv"
    else
        echo "$program"
        exit
    fi
done
echo "No usable Python among $*: install Python 3.11 or newer, or name one with make PYTHON=/path/to/python3.12$found" >&2
exit 1
