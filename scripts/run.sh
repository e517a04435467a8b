#!/usr/bin/env bash
# The main job, headless, as a user would script it: base stations in, maps out. `make run` sets the environment.
#   scripts/run.sh [base-station layer] [id field] [boundary polygons]
set -euo pipefail
cd "$(dirname "$0")/.."
bs=${1:-} id=${2:-} boundary=${3:-}
city=resources/sample_city/sample_city.gpkg
out=build/run
rm -rf "$out" && mkdir -p "$out"
# torch lives in .venv; QGIS's own Python finds it there (the venv adds nothing that QGIS has itself).
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

telcoloc() {
  printf '\n\033[1mqgis_process run telcoloc:%s\033[0m\n' "$*"
  PYTHONPATH="$site" qgis_process run "telcoloc:$1" "${@:2}" 2>&1 |
    awk '/^Inputs$/ { skipping = 1 } skipping && /^$/ && ++blank == 2 { skipping = blank = 0 } !skipping' |
    sed -E '/^-+$|GRASS|^Results$|^$/d; s/^[.0-9]*\.\.\.?[.0-9]*( - done\.)?//; s/^0([A-Z])/\1/; /^$/d; s/^/  /'
}

if [ -n "$bs" ]; then
  [ -e "${bs%%|*}" ] || { echo "BS=$bs: there is no such file." >&2; exit 1; }
  station=(--INPUT="$bs" ${id:+--ID_FIELD="$id"} ${boundary:+--BOUNDARY="$boundary"})
else
  bs="$city|layername=base_stations"
  station=(--INPUT="$bs" --ID_FIELD=bs_id --BOUNDARY="$city|layername=boundary")
fi
telcoloc geolocatebasestations "${station[@]}" \
  --OUTPUT="$out/stack.tif" --BEST_SERVER="$out/best_server.tif" --COVERAGE="$out/coverage.gpkg"
telcoloc geolocatebasestations "${station[@]}" --METHOD=voronoi --OUTPUT="$out/voronoi.tif"
telcoloc comparegeolocations --REFERENCE="$out/stack.tif" --COMPARED="$out/voronoi.tif" \
  --OUTPUT="$out/comparison.gpkg" --OUTPUT_HTML="$out/comparison.html"
if [ -z "${1:-}" ]; then
  hours=(); for hour in $(seq -w 0 23); do hours+=(--FIELDS="h$hour"); done
  telcoloc mapmetadata --GEOLOCATION="$out/stack.tif" --INPUT="$bs" --ID_FIELD=bs_id "${hours[@]}" \
    --ZONES="$city|layername=zones" --OUTPUT="$out/density.tif" --ZONE_TOTALS="$out/zone_totals.gpkg"
fi
/usr/bin/python3 scripts/map_picture.py "$out" "$bs"
printf '\n\033[1mWritten to %s\033[0m\n' "$PWD/$out"
ls -lh "$out" | awk 'NR > 1 && $9 !~ /qml|aux/ { printf "  %-22s %s\n", $9, $5 }'
