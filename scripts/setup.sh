#!/usr/bin/env bash
# Brings a bare Debian 12 or 13 to where TelcoLoc runs. Idempotent: what is there is not touched, and the second call is quick.
#
# 1. QGIS >= 3.40 and the scientific Python stack, from Debian (on Debian 12 QGIS comes from bookworm-backports).
# 2. .venv: a virtual environment over the system packages, with torch (CPU build unless you put another there) and the test tools.
# 3. .qgis/: a QGIS profile of its own with this folder linked into it as the plugin "telcoloc".
set -euo pipefail
cd "$(dirname "$0")/.."

QGIS_FLOOR=3.40
QGIS_PACKAGES=(qgis python3-qgis)
APT_PACKAGES=(python3-venv python3-pip python3-geopandas python3-rasterio python3-scipy python3-sklearn
              python3-matplotlib python3-pandas python3-pil xvfb xauth git make zip)
REQUIREMENTS=requirements-dev.txt
# shellcheck source=/dev/null
. /etc/os-release
# Debian 13 has torch for its own Python and numpy; on Debian 12 it comes from pip.
[ "${VERSION_CODENAME:-}" = trixie ] && APT_PACKAGES+=(python3-torch)
PYTHON=/usr/bin/python3   # QGIS's own Python on Debian; another python3 first on the PATH has no qgis

say() { printf '\033[1m[setup]\033[0m %s\n' "$*"; }
fail() { printf '[setup] %s\n' "$*" >&2; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"
  elif command -v sudo >/dev/null; then sudo "$@"
  else fail "Installing Debian packages needs root: run 'make setup' once as root, or install: ${QGIS_PACKAGES[*]} ${APT_PACKAGES[*]}"; fi
}

missing_packages() {
  for package in "${QGIS_PACKAGES[@]}" "${APT_PACKAGES[@]}"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || echo "$package"
  done
}

qgis_is_recent() {
  local version
  version=$(dpkg-query -W -f '${Version}' python3-qgis 2>/dev/null) || return 1
  dpkg --compare-versions "$version" ge "$QGIS_FLOOR"
}

# The archive this machine already uses for the named suite (deb822 or one-line format).
archive_of() {
  find /etc/apt -maxdepth 2 -name '*.list' -exec cat {} + -o -name '*.sources' -exec cat {} + -exec echo \; |
    awk -v suite="$1" '
      /^[[:space:]]*$/ { uri = "" }
      /^URIs:/ { uri = $2 }
      /^Suites:/ { for (i = 2; i <= NF; i++) if ($i == suite && uri && !found) found = uri }
      /^deb / { for (i = 2; i < NF; i++) if ($i ~ /:\/\// && $(i + 1) == suite && !found) found = $i }
      END { print found }'
}

add_backports() {
  grep -rqs 'bookworm-backports' /etc/apt/sources.list /etc/apt/sources.list.d && return
  local archive
  archive=$(archive_of bookworm 2>/dev/null || true)
  [ -n "$archive" ] || fail "No apt source for bookworm found in /etc/apt; add its bookworm-backports suite by hand, then run again."
  say "adding Debian's bookworm-backports suite (QGIS $QGIS_FLOOR lives there)"
  printf 'Types: deb\nURIs: %s\nSuites: bookworm-backports\nComponents: main\nSigned-By: %s\n' \
    "$archive" /usr/share/keyrings/debian-archive-keyring.gpg |
    as_root tee /etc/apt/sources.list.d/telcoloc-backports.sources >/dev/null
}

apt_install() {
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends -o Dpkg::Use-Pty=0 "$@" >/dev/null
}

install_debian_packages() {
  local suite=()
  case "${VERSION_CODENAME:-}" in
    bookworm) add_backports; suite=(-t bookworm-backports) ;;
    trixie) ;;
    *) fail "This set-up knows Debian 12 and 13, this is ${PRETTY_NAME:-unknown}. Install QGIS $QGIS_FLOOR or newer by hand (README)." ;;
  esac
  say "installing from Debian: ${QGIS_PACKAGES[*]} ${APT_PACKAGES[*]}"
  as_root apt-get update -qq
  apt_install "${suite[@]}" "${QGIS_PACKAGES[@]}"
  apt_install "${APT_PACKAGES[@]}"
  qgis_is_recent || fail "Debian gave QGIS $(dpkg-query -W -f '${Version}' python3-qgis), at least $QGIS_FLOOR is needed."
}

make_venv() {
  local stamp=.venv/.telcoloc-stamp want
  want=$(sha256sum "$REQUIREMENTS" pyproject.toml scripts/setup.sh | sha256sum)
  [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ] && return
  say "making .venv over the system packages"
  "$PYTHON" -m venv --system-site-packages .venv
  PIP_CONSTRAINT="" .venv/bin/python -m pip install -q --disable-pip-version-check -r "$REQUIREMENTS"
  echo "$want" >"$stamp"
}

link_plugin() {
  local plugins=.qgis/profiles/default/python/plugins
  mkdir -p "$plugins"
  mkdir -p -m 700 .qgis/runtime
  [ "$(readlink "$plugins/telcoloc" 2>/dev/null)" = "$PWD" ] || ln -sfn "$PWD" "$plugins/telcoloc"
  local ini=.qgis/profiles/default/QGIS/QGIS3.ini
  if [ ! -f "$ini" ]; then
    mkdir -p "$(dirname "$ini")"
    printf '[PythonPlugins]\ntelcoloc=true\nprocessing=true\n[app]\nprojections\\unknownCrsBehavior=NoAction\n[qgis]\ncheckVersion=false\n' >"$ini"
  fi
}

if [ -n "$(missing_packages)" ] || ! qgis_is_recent; then install_debian_packages; fi
make_venv
link_plugin
say "ready: QGIS $(dpkg-query -W -f '${Version}' python3-qgis), $(.venv/bin/python --version)"
