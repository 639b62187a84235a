#!/bin/sh
# A public deposit from its files to the figures that others are measured by. README.md says where the files come from.
set -eu

usage() {
    echo "usage: run.sh empiar-10164|empiar-10304|empiar-10491 FOLDER_OF_THE_DEPOSIT [reference.mrc|-] [model.cif] [gain.mrc]" >&2
    exit 2
}

# A series or an item at fault is left out with its reason, and the exit code is 3: the others go on.
unless_partly() { "$@" || [ $? -eq 3 ]; }

[ $# -ge 2 ] || usage
deposit=$1 data=$2 reference=${3:--} model=${4:-} gain=${5:-}
project=$deposit

if [ ! -e "$project/project.toml" ]; then
    set -- --recipe "$deposit"
    [ "$reference" = - ] || set -- "$@" --reference "$reference"
    [ -z "$gain" ] || set -- "$@" --gain "$gain"
    case $deposit in
    empiar-10164 | empiar-10304 | empiar-10491) tiltwise new "$project" "$@" ;;
    *) usage ;;
    esac
fi

case $deposit in
empiar-10164)
    set --
    for series in 01 03 43 45 54; do set -- "$@" "$data/mdoc/TS_$series.mrc.mdoc"; done
    unless_partly tiltwise import "$project" "$@" --images "$data/frames"
    ;;
empiar-10304) unless_partly tiltwise import "$project" "$data"/*.mrc --exposure-e-A2 2.9 ;;
empiar-10491) unless_partly tiltwise import "$project" "$data"/*.mdoc --images "$data/frames" ;;
esac

unless_partly tiltwise run "$project"
tiltwise bfactor "$project"
[ -z "$model" ] || tiltwise model-fsc "$project" "$model"
[ -d "$project-relion" ] || tiltwise export "$project" --particles relion --output "$project-relion"
