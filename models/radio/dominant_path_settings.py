"""The constants of the dominant path model; without scipy, so that options can be read before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError


@dataclass(frozen=True)
class DominantPathSettings:
    """Constants of the model.

    Parameters
    ----------
    exponent_seen, exponent_hidden
        p where the straight ray is clear, in the plane or above the roofs, and around corners. Over roofs it is the former, for
        P.526 adds its diffraction to free space. WinProp has one for each, free to choose; for ours see the next.
    most_diffraction_db, least_diffraction_db, full_angle_deg
        f(φ, 0) rises linearly from the least (φ = 0) to the most at the full angle, and stays there. WinProp: 2 to 30 dB, 0 to 10 dB
        and 70 to 90°. With 0 for the least a round wall of many corners costs little more than one corner. With 10 dB the hidden places
        of Munich lose 2 dB more, in the median, than UMi without line of sight (TR 38.901), for antennas 10 m high at 2 GHz
        (`benchmarks/radio_maps_speed.py`).
    repeated_share
        f(φ, i) = f(φ, 0) · share^i: what remains of the loss after i changes of direction. Ours: the authors say that f depends on i,
        not how.
    over_roofs
        Whether paths over roofs count.
    guiding
        Whether walls along the path guide the wave.
    reflection_loss_db, guiding_reach_m
        Loss of a reflection at a wall [dB], and the distance at which a wall guides no more [m].
        Ω = 10 log10(1 + 2 n ρ / (1 − ρ)), ρ = 10^(−reflection loss / 10): the power of the images in two parallel walls, added; n is
        1 − distance of the nearest wall / reach, 0 at least, averaged over the path. Ours; the authors name the two parameters.
    """

    exponent_seen: float = 2.0
    exponent_hidden: float = 2.8
    most_diffraction_db: float = 10.0
    least_diffraction_db: float = 0.0
    full_angle_deg: float = 90.0
    repeated_share: float = 0.8
    over_roofs: bool = True
    guiding: bool = False
    reflection_loss_db: float = 6.0
    guiding_reach_m: float = 25.0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("exponent_seen", 1.0, 8.0),
            ("exponent_hidden", 1.0, 8.0),
            ("most_diffraction_db", 0.0, 60.0),
            ("least_diffraction_db", 0.0, self.most_diffraction_db),
            ("full_angle_deg", 1.0, 180.0),
            ("repeated_share", 0.0, 1.0),
            ("reflection_loss_db", 0.1, 60.0),
            ("guiding_reach_m", 0.1, 1000.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} must be between {low:g} and {high:g}, not {value}.")
