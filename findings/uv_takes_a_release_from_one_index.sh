#!/usr/bin/env bash
# uv 0.13.9 and pip 26.0.1 with the same two indexes, which hold different wheels of one release: soundfile 0.14.0, which
# SGLang asks for and transformers imports for every model.
#
# One would guess: with --index-strategy unsafe-best-match, which makes uv compare the releases of all indexes as pip
#   does, both install the same wheel: the one for this platform, which brings libsndfile.
# What happens: pip pools the files of a release from all indexes and takes the platform's wheel. uv pools releases, not
#   files: it takes the release from the first index that has it, and of that index the best wheel, here the one for any
#   platform, which needs a libsndfile that the machine may not have. `import transformers` then fails with an OSError.
# Whom it meets: whoever moves from pip to uv where an extra index mirrors a part of PyPI, as closed networks do.
# What this project does: tools/pip_settings.py names the main index before the extra ones.
# Seen 2026-11-29; uv's documentation of --index-strategy speaks of versions and says nothing of their files.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv tools
tools/bin/python -m pip install -q --disable-pip-version-check pip==26.0.1 uv==0.13.9
for platform in any manylinux_2_28_x86_64; do
  mkdir -p "$platform/simple/soundfile"
  tools/bin/python -m pip download -q --no-deps --only-binary=:all: --platform "$platform" -d "$platform/simple/soundfile" soundfile==0.14.0
  (cd "$platform/simple/soundfile" && for wheel in *.whl; do echo "<a href=\"$wheel\">$wheel</a>"; done >index.html)
  ls "$platform/simple/soundfile"
done

alone=(env -i PATH="$PATH" HOME="$work" PIP_CONFIG_FILE=/dev/null) # nothing that this machine is set up with
indexes=(--index-url "file://$work/any/simple" --extra-index-url "file://$work/manylinux_2_28_x86_64/simple")
"${alone[@]}" tools/bin/python -m pip install -q --no-deps --target pip "${indexes[@]}" soundfile==0.14.0
"${alone[@]}" tools/bin/uv pip install -q --no-deps --target uv --index-strategy unsafe-best-match --no-cache \
  --default-index "file://$work/manylinux_2_28_x86_64/simple" --index "file://$work/any/simple" soundfile==0.14.0

by_pip=$(grep -h '^Tag: py3' pip/soundfile-*.dist-info/WHEEL)
by_uv=$(grep -h '^Tag: py3' uv/soundfile-*.dist-info/WHEEL)
tools/bin/python -m pip --version | cut -d' ' -f1-2
tools/bin/uv --version
printf 'pip installed %s\nuv installed  %s\n' "$by_pip" "$by_uv"
[ "$by_pip" = "Tag: py3-none-manylinux_2_28_x86_64" ] && [ "$by_uv" = "Tag: py3-none-any" ]
