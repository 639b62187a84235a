"""Motion of real movies, as it was measured: EMPIAR-10164, TS_03 and TS_43, every movie of both series.

One tilt's movie lies within 0.3 to 1 Å (rms) of its mean up to some 40°, within 3.4 Å beyond, but for two at -54°
and -57° of TS_03 that move by 27 and 65 Å from the first frame to the last. TILTWISE_SHARED names the folder of the
data.
"""

import csv
import os
from pathlib import Path

import numpy as np

SHARED = Path(os.environ.get("TILTWISE_SHARED", Path(__file__).parents[2] / "shared"))
TRACKS = SHARED / "data" / "hiv_empiar10164" / "motion" / "frame_shifts.csv"
SERIES = ("TS_03", "TS_43")
TRACK_PIXEL = 0.675
"""Å, of the shifts in the file."""


def measured_tracks() -> dict[str, np.ndarray]:
    """Movie -> (frame, 2) Å, where its frames lie; FileNotFoundError without the data."""
    tracks: dict[str, list] = {}
    with open(TRACKS, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            tracks.setdefault(row["movie"], []).append((float(row["shift_x_px"]), float(row["shift_y_px"])))
    return {name: np.array(track) * TRACK_PIXEL for name, track in tracks.items()}


def tracks_at(name: str, stage_tilt_angle: np.ndarray) -> list[np.ndarray]:
    """(tilt) tracks (frame, 2) Å of the movies of a real series that were taken nearest to these angles, degrees; names
    are as TS_03_035_-54_0: series, number in time, angle."""
    own = {key: track for key, track in measured_tracks().items() if key.startswith(name)}
    taken = np.array([float(key.split("_")[3]) for key in own])
    nearest = np.abs(np.asarray(stage_tilt_angle)[:, None] - taken).argmin(axis=1)
    return [list(own.values())[n] for n in nearest]
