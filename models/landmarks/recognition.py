"""Which landmark a photo shows: k nearest ones by each descriptor, merged by occurrence, among those near the instant's candidates.

Section 3 of the landmark paper finds the k nearest landmarks by each descriptor and sorts them by how many of the lists hold them.
Section 4.2 searches only I(S_t, r), the landmarks within r of one of the instant's candidates. A match becomes a fiducial point only by
a margin: its distance must be well below that of any other landmark, and below what photos of different landmarks reach by chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..progress import Progress, no_progress
from ..trajectory.joins import nearest_in_time
from .candidates import Candidates
from .descriptors import BY_NAME, DESCRIPTORS

#: Combined distance (1: typical of different landmarks) that the nearest wrong one of a few landmarks seldom goes below, and the share
#: by which a fiducial match must be nearer; `benchmarks/landmark_matching.py --calibrate` shows what they lead to.
LIMIT, MARGIN = 0.9, 0.2
#: Instants before and after a photo's that tell which landmarks its path can come by.
WINDOW = 5


@dataclass(frozen=True)
class Album:
    """Described photos of landmarks.

    Parameters
    ----------
    landmark
        Row in the landmarks that each photo shows, shape (n_photos,); several photos may show one landmark.
    vectors
        Descriptions by the descriptor's name, each of shape (n_photos, its size).
    """

    landmark: np.ndarray
    vectors: Mapping[str, np.ndarray]

    @property
    def descriptors(self) -> tuple[str, ...]:
        """Names, in the usual order."""
        return tuple(descriptor.name for descriptor in DESCRIPTORS if descriptor.name in self.vectors)


@dataclass(frozen=True)
class Recognised:
    """What each of n photos shows.

    Parameters
    ----------
    landmark
        Row in the landmarks, −1 where it shows none, shape (n,), int32.
    votes
        How many descriptors have it among their k nearest, shape (n,), int32.
    distance
        To it, as a weighted mean over the descriptors of distances divided by the typical one, shape (n,), NaN where none was searched.
    margin
        Share by which it is nearer than the nearest other one, or than `LIMIT`, shape (n,).
    sure
        Whether the margin is large enough for a fiducial point, shape (n,), bool.
    searched
        Number of landmarks searched, shape (n,), int32.
    """

    landmark: np.ndarray
    votes: np.ndarray
    distance: np.ndarray
    margin: np.ndarray
    sure: np.ndarray
    searched: np.ndarray


def landmark_distances(photo: Mapping[str, np.ndarray], album: Album, wanted: np.ndarray) -> np.ndarray:
    """Distance of a photo to each landmark by each descriptor, that of its most alike photo, in units of the typical distance.

    Parameters
    ----------
    wanted
        Which landmarks are searched, shape (n_landmarks,), bool; others are not compared.

    Returns
    -------
    np.ndarray
        Shape (n_descriptors, n_landmarks), inf for landmarks that are not searched or have no photo.
    """
    rows = np.flatnonzero(wanted[album.landmark])
    found = np.full((len(album.descriptors), len(wanted)), np.inf)
    if len(rows):
        for index, name in enumerate(album.descriptors):
            descriptor = BY_NAME[name]
            distance = descriptor.distance(photo[name], album.vectors[name][rows]) / descriptor.typical
            np.minimum.at(found[index], album.landmark[rows], distance)
    return found


def merged(distances: np.ndarray, weights: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Merge the k nearest of each descriptor by occurrence, ties by weighted mean distance.

    Parameters
    ----------
    distances
        As `landmark_distances` returns them, shape (n_descriptors, n_landmarks).

    Returns
    -------
    (order, votes, combined)
        Landmarks that were searched, the best first; occurrences and combined distance of all, shape (n_landmarks,).
    """
    there = np.isfinite(distances).all(axis=0)
    combined = np.where(there, weights @ np.where(there, distances, 0.0) / weights.sum(), np.inf)
    votes = np.zeros(distances.shape[1], dtype=np.int32)
    for row in distances:
        nearest = np.argsort(row, kind="stable")[:k]
        votes[nearest[there[nearest]]] += 1
    order = np.lexsort([combined, -votes])
    return order[there[order]], votes, combined


def recognise(
    photos: Sequence[Mapping[str, np.ndarray]],
    album: Album,
    wanted: np.ndarray,
    k: int = 3,
    margin: float = MARGIN,
    progress: Progress = no_progress,
) -> Recognised:
    """Find out which landmarks photos show.

    Parameters
    ----------
    photos
        Their descriptions by name, n of them; each has all of the album's.
    wanted
        Landmarks to search for each photo, shape (n, n_landmarks), bool.
    k
        Landmarks in each descriptor's list.
    margin
        Least margin of a fiducial match.

    Raises
    ------
    InputError
        k or margin out of range, an album without descriptions.
    """
    if k < 1 or not 0 <= margin < 1:
        raise InputError(f"K is {k} and MARGIN {margin:g}; K must be 1 or more, and MARGIN from 0 to less than 1.")
    if not album.descriptors:
        raise InputError("The photos of the landmarks have no description in common; describe all of them anew.")
    weights = np.array([BY_NAME[name].weight for name in album.descriptors])
    n = len(photos)
    landmark, votes = np.full(n, -1, dtype=np.int32), np.zeros(n, dtype=np.int32)
    distance, lead = np.full(n, np.nan), np.full(n, np.nan)
    searched = np.zeros(n, dtype=np.int32)
    for row, photo in enumerate(photos):
        progress(row / n)
        order, occurrences, combined = merged(landmark_distances(photo, album, wanted[row]), weights, k)
        searched[row] = len(order)
        if not len(order):
            continue
        best = int(order[0])
        other = min(float(combined[order[1:]].min(initial=np.inf)), LIMIT)
        distance[row] = combined[best]
        lead[row] = 1.0 - combined[best] / other if other > 0 else 0.0  # two landmarks with the very same photo
        votes[row] = occurrences[best]
        if lead[row] > 0:
            landmark[row] = best
    sure = (landmark >= 0) & (np.nan_to_num(lead, nan=-1.0) >= margin)
    return Recognised(landmark, votes, distance, lead, sure, searched)


def instants_at(
    candidates: Candidates, device: np.ndarray, time_s: np.ndarray, most_delay_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Instants that photos belong to: of each trajectory of the photo's device, the nearest in time.

    Parameters
    ----------
    device
        Index in `candidates.devices` of each photo, −1 for any device, shape (n,).
    time_s
        Of each photo, shape (n,).
    most_delay_s
        Instants farther away in time count not.

    Returns
    -------
    (photo, instant)
        Pairs of rows, by photo.
    """
    photos, instants = [], []
    for first, end in zip(candidates.starts[:-1], candidates.starts[1:]):
        mine = np.flatnonzero((device < 0) | (device == candidates.device[first]))
        there = candidates.time_s[first:end]
        nearest = nearest_in_time(np.zeros_like(mine), time_s[mine], np.zeros(len(there), int), there, most_delay_s)
        photos.append(mine[nearest >= 0])
        instants.append(first + nearest[nearest >= 0])
    if not photos:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    photo, instant = np.concatenate(photos), np.concatenate(instants)
    order = np.lexsort([instant, photo])
    return photo[order], instant[order]


def near_candidates(xy_m: np.ndarray, candidates: Candidates, instant: int, radius_m: float) -> np.ndarray:
    """I(S_t, r): the landmarks within `radius_m` of a candidate of an instant, shape (n_landmarks,), bool.

    Parameters
    ----------
    xy_m
        Of the landmarks, shape (n_landmarks, 2).
    """
    return _nearest_m(xy_m, candidates, instant) <= radius_m


def on_the_way(
    xy_m: np.ndarray,
    candidates: Candidates,
    instant: int,
    radius_m: float,
    top_speed_m_s: float,
    window: int = WINDOW,
) -> np.ndarray:
    """Landmarks that a path can come by at an instant, shape (n_landmarks,), bool.

    From each instant of the trajectory before and after, up to `window` of them, some candidate must lead there within the
    time between them; `radius_m` is how far the candidates may be off.
    """
    starts = candidates.starts
    part = int(np.searchsorted(starts, instant, side="right")) - 1
    first, end = max(int(starts[part]), instant - window), min(int(starts[part + 1]), instant + window + 1)
    reachable = np.ones(len(xy_m), dtype=bool)
    for other in range(first, end):
        if candidates.first[other] == candidates.first[other + 1]:  # nothing is known of it
            continue
        wait = abs(candidates.time_s[other] - candidates.time_s[instant])
        reachable &= _nearest_m(xy_m, candidates, other) <= radius_m + top_speed_m_s * wait
    return reachable


def _nearest_m(xy_m: np.ndarray, candidates: Candidates, instant: int) -> np.ndarray:
    """Distance of each landmark to the nearest candidate of an instant [m]; inf without candidates."""
    part = slice(int(candidates.first[instant]), int(candidates.first[instant + 1]))
    apart = np.hypot(*(xy_m[:, None] - candidates.xy_m[None, part]).transpose(2, 0, 1))
    return apart.min(axis=1, initial=np.inf)


def filtered(
    xy_m: np.ndarray,
    candidates: Candidates,
    device: np.ndarray,
    time_s: np.ndarray,
    radius_m: float,
    most_delay_s: float,
    top_speed_m_s: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Landmarks to search for each of n photos.

    Returns
    -------
    (wanted, timed)
        Shape (n, n_landmarks) and (n,), bool: which landmarks are near a candidate of the photo's instant and, with a top speed, on
        a way there; and whether the photo has an instant at all.
    """
    wanted = np.zeros((len(time_s), len(xy_m)), dtype=bool)
    timed = np.zeros(len(time_s), dtype=bool)
    for photo, instant in zip(*instants_at(candidates, device, time_s, most_delay_s)):
        near = near_candidates(xy_m, candidates, instant, radius_m)
        if top_speed_m_s is not None:
            near &= on_the_way(xy_m, candidates, instant, radius_m, top_speed_m_s)
        wanted[photo] |= near
        timed[photo] = True
    return wanted, timed
