"""Map matching with a hidden Markov model: which streets a device took.

After Newson & Krumm, "Hidden Markov Map Matching Through Noise and Sparseness", ACM GIS 2009; equation numbers are theirs. States
are places on streets near a point. A place is the likelier the nearer it is to its point (1), and a step between two places the
likelier the less its route differs in length from the step between the points (2, 3); Viterbi finds the likeliest sequence.

Differences, each so that no input can freeze a run or end it early, or so that coarse points give no restless path:

- places per point, the search radius and the lengths of routes are bounded;
- where no route is possible, or after a long silence, the path is split and goes on;
- points without a street near them stay where they are; a few that no route reaches from either side are left out;
- a state is a place and a direction of travel, and turning round costs likelihood;
- going back a little without turning is noise: the device stands still (no drive around the block of a one-way street);
- a step counts for what lies between its length and its length without the noise of its two points.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError
from ..progress import Progress, no_progress, span
from .streets import MOST_NODES, Candidates, RouteSearch, Streets

#: Points matched at once with 8 candidates each; fewer with more.
_CHUNK, _SMALLEST_CHUNK = 10_000, 200
#: Steps whose probabilities are computed at once.
_BLOCK = 1_000
#: Steps whose routes are searched at once.
_STEPS_AT_ONCE = 512
#: A route is first searched up to this much longer than the step: a share of it, and betas or metres, whichever is more.
_FIRST_SHARE, _FIRST_BETAS, _FIRST_M = 0.5, 8.0, 200.0
#: Going back by up to so many σ is noise: three of the difference of two errors.
_NOISE_SIGMAS = 3.0 * math.sqrt(2.0)
#: So many points at most, which no route reaches from either side, are taken for outliers.
_OUTLIERS = 2
#: Steps longer than this are not bridged [m].
LONGEST_STEP_M = 5_000.0
#: Positions coarser than this get more candidates [m].
_COARSE_SIGMA_M = 20.0
#: No point is trusted more than this [m].
SMALLEST_SIGMA_M = 1.0
#: No street is searched farther away [m].
LARGEST_RADIUS_M = 2_000.0

#: How a state leads to the next: not at all, along its edge, or through nodes; bits more for turning round, first or at a node.
_UNREACHED, _SAME_EDGE, _THROUGH_NODES, _TURN_FIRST, _TURN_AT_NODE = -1, 0, 1, 2, 4


@dataclass(frozen=True)
class Matching:
    """How to match.

    Attributes
    ----------
    sigma_m
        Standard deviation of positions, per axis [m]: σz of equation (1).
    beta_m
        Scale of |step − route| [m]: β of equation (2); None for the σ of each step's points.
    radius_m
        Streets up to this far from a point are looked at [m]; with σ of points given, up to 4σ where that is more.
    max_gap_s
        After a longer silence a new stretch begins [s].
    candidates
        Most streets looked at per point, the nearest; None for 8, or 16 where positions are coarse (σ above 20 m).
    max_detour_m
        A route may be this much longer than its step [m].
    max_speed_m_s
        Routes that would need more speed, beyond what the radius explains, are impossible [m/s].
    turn_log
        What turning round takes from the logarithm of a path's likelihood.
    skip_close
        Whether points within 2σ of the last one used are only placed along the route found (section 4.1 of the paper).
    """

    sigma_m: float = 10.0
    beta_m: float | None = None
    radius_m: float = 50.0
    max_gap_s: float = 180.0
    candidates: int | None = None
    max_detour_m: float = 2_000.0
    max_speed_m_s: float = 70.0
    turn_log: float = 8.0
    skip_close: bool = False


@dataclass(frozen=True)
class Matched:
    """Where n points were on the streets, in the order they were given, and the routes between them.

    Attributes
    ----------
    xy_m
        Matched coordinates [m], shape (n, 2); those given for points off the road.
    edge, along_m, forward
        Edge, distance along it [m] and direction of travel, shape (n,); edge −1 off the road.
    line
        Input line of that edge in that direction, −1 off the road, shape (n,).
    offset_m
        Distance between point and match [m], NaN off the road, shape (n,).
    stretch
        Number of the stretch, from 0, −1 off the road, shape (n,).
    log_likelihood
        What the chosen place adds to the logarithm of the path's likelihood (1, 2), NaN off the road and for points skipped, shape (n,).
    confidence
        Posterior probability of the chosen place among its candidates, given the points of its stretch; NaN likewise, shape (n,).
    route_xy_m, route_m
        Vertices of all stretches' routes, one after the other, shape (r, 2), and time [s] (the point's number where no times are
        given) by distance, shape (r,).
    route_first
        Index of each stretch's first vertex, and r at the end, shape (stretches + 1,).
    """

    xy_m: np.ndarray
    edge: np.ndarray
    along_m: np.ndarray
    forward: np.ndarray
    line: np.ndarray
    offset_m: np.ndarray
    stretch: np.ndarray
    log_likelihood: np.ndarray
    confidence: np.ndarray
    route_xy_m: np.ndarray
    route_m: np.ndarray
    route_first: np.ndarray

    @property
    def stretches(self) -> int:
        """Number of stretches."""
        return len(self.route_first) - 1


def emission_log(distance_m: np.ndarray, sigma_m: float | np.ndarray) -> np.ndarray:
    """Equation (1): log p(z_t | r_i) of a Gaussian in the distance between point and place."""
    return -0.5 * (distance_m / sigma_m) ** 2 - np.log(np.sqrt(2 * np.pi) * sigma_m)


def transition_log(
    step_m: np.ndarray, route_m: np.ndarray, beta_m: float | np.ndarray, least_m: float | np.ndarray | None = None
) -> np.ndarray:
    """Equations (2) and (3): log p(d_t) of an exponential in d_t = |step between points − route between places|.

    Where the step without noise may be as short as `least_m`, routes between that and the step differ by nothing. A negative route
    is going back by noise: the device stood still, and d_t is the whole step.
    """
    least = step_m if least_m is None else least_m
    differs = np.maximum(np.maximum(route_m - step_m, least - route_m), 0.0)
    differs = np.where(route_m < 0, step_m, differs)
    return -differs / beta_m - np.log(beta_m)


def _tile_side_m(limit_m: np.ndarray) -> np.ndarray:
    """Side of the tiles [m] in which routes up to `limit_m` are searched together: neither many tiles nor large networks in one."""
    return np.maximum(np.clip(4 * limit_m, 1_000.0, 2_000.0), limit_m / 2)


def match(
    streets: Streets,
    xy_m: np.ndarray,
    time_s: np.ndarray | None = None,
    trajectory: np.ndarray | None = None,
    sigma_m: np.ndarray | None = None,
    settings: Matching | None = None,
    threads: int = 1,
    progress: Progress = no_progress,
) -> Matched:
    """Match points to streets.

    Parameters
    ----------
    xy_m
        Points [m], shape (n, 2).
    time_s
        Times [s], shape (n,), in any order; None for points in their order.
    trajectory
        Code of the trajectory of each point, shape (n,); None for one trajectory.
    sigma_m
        Standard deviation of each point, per axis [m], shape (n,); NaN and None for that of `settings`.
    settings
        See `Matching`.
    threads
        Threads for the search for streets.
    progress
        May raise `Cancelled`.

    Raises
    ------
    InputError
        Points or times that are not finite.
    """
    settings = settings or Matching()
    xy_m = np.asarray(xy_m, float).reshape(-1, 2)
    n = len(xy_m)
    codes = np.zeros(n, np.int64) if trajectory is None else np.asarray(trajectory)
    time = None if time_s is None else np.asarray(time_s, float)
    if not np.isfinite(xy_m).all() or (time is not None and not np.isfinite(time).all()):
        raise InputError("Points to match need finite coordinates and times.")
    sigma = np.full(n, settings.sigma_m) if sigma_m is None else np.asarray(sigma_m, float)
    sigma = np.maximum(np.where(np.isfinite(sigma), sigma, settings.sigma_m), SMALLEST_SIGMA_M)
    own = np.zeros(n) if sigma_m is None else 4 * sigma
    radius = np.minimum(np.maximum(settings.radius_m, own), LARGEST_RADIUS_M)
    most = settings.candidates or (8 if not n or np.median(sigma) <= _COARSE_SIGMA_M else 16)
    order = np.lexsort((np.arange(n) if time is None else time, codes))
    begins = np.ones(n, bool)
    begins[1:] = codes[order[1:]] != codes[order[:-1]]
    if time is not None:
        begins[1:] |= np.diff(time[order]) > settings.max_gap_s
    measure = np.arange(n, dtype=float) if time is None else time
    parts: list[Matched] = []
    joined: list[bool] = []
    search = RouteSearch(streets)
    start = 0
    carried: _Place | None = None
    while start < n:
        stop, whole = _chunk_end(begins, start, max(_SMALLEST_CHUNK, int(_CHUNK * (8 / most) ** 2)))
        rows = order[start:stop]
        chunk = _Chunk(
            streets,
            search,
            xy_m[rows],
            measure[rows],
            time is not None,
            begins[start:stop],
            sigma[rows],
            radius[rows],
            replace(settings, candidates=most),
        )
        part = chunk.match(threads, span(progress, start / n, stop / n), carried)
        joined.append(carried is not None)
        carried = None
        if not whole and chunk.last > 0:  # the run goes on from its last point used
            carried = _Place(*(column[chunk.last] for column in (part.edge, part.along_m, chunk.ahead, part.offset_m)))
            stop = start + chunk.last
            part = _only_first(part, chunk.last + 1)
        parts.append(part)
        start = stop
    return _assembled(parts, joined, order, xy_m)


def snap_sequences(
    trajectory: np.ndarray,
    time_s: np.ndarray,
    x_m: np.ndarray,
    y_m: np.ndarray,
    streets: Streets,
    spread_m: np.ndarray | None = None,
    settings: Matching | None = None,
    threads: int = 1,
    progress: Progress = no_progress,
) -> tuple[np.ndarray, np.ndarray]:
    """Match whole sequences and return x and y [m], shape (n,) each, in the order given; points off the road are as they were.

    Parameters
    ----------
    trajectory, time_s, x_m, y_m
        Code of the trajectory, time [s] and position [m] of each point, shape (n,) each.
    spread_m
        Standard deviation of each point, per axis [m], shape (n,); None for that of `settings`.
    """
    points = np.column_stack([x_m, y_m])
    matched = match(streets, points, time_s, trajectory, spread_m, settings, threads, progress)
    return matched.xy_m[:, 0], matched.xy_m[:, 1]


def _chunk_end(begins: np.ndarray, start: int, size: int) -> tuple[int, bool]:
    """Where the chunk from `start` ends, and whether a run ends there too; a run is cut only when it is longer than a chunk."""
    n = len(begins)
    if n - start <= size:
        return n, True
    ends = np.flatnonzero(begins[start + 1 : start + size + 1])
    return (start + 1 + int(ends[-1]), True) if len(ends) else (start + size, False)


def _only_first(part: Matched, count: int) -> Matched:
    """Return the first `count` points; the others have no place on a route."""
    names = ("xy_m", "edge", "along_m", "forward", "line", "offset_m", "stretch", "log_likelihood", "confidence")
    return replace(part, **{name: getattr(part, name)[:count] for name in names})


def _assembled(parts: list[Matched], joined: list[bool], order: np.ndarray, xy_m: np.ndarray) -> Matched:
    """Put chunks together, points back in their order, stretches numbered through.

    A chunk that is `joined` begins with the last point and in the last stretch of the one before.
    """
    if not parts:
        none = np.empty(0)
        no = np.empty(0, np.int64)
        return Matched(xy_m, no, none, no > 0, no, none, no, none, none, xy_m, none, np.zeros(1, np.int64))
    names = ("xy_m", "edge", "along_m", "forward", "line", "offset_m", "log_likelihood", "confidence")
    columns: dict[str, list[np.ndarray]] = {name: [] for name in (*names, "stretch", "route_xy_m", "route_m")}
    starts: list[np.ndarray] = []
    stretches = vertices = 0
    for part, join in zip(parts, joined):
        skip = int(join)
        for name in names:
            columns[name].append(getattr(part, name)[skip:])
        base = stretches - skip
        columns["stretch"].append(np.where(part.stretch < 0, -1, part.stretch + base)[skip:])
        columns["route_xy_m"].append(part.route_xy_m[skip:])
        columns["route_m"].append(part.route_m[skip:])
        starts.append(part.route_first[skip:-1] + (vertices - skip))
        stretches = base + part.stretches
        vertices += len(part.route_m) - skip
    whole = {name: np.concatenate(pieces) for name, pieces in columns.items()}
    back = np.empty(len(order), np.int64)
    back[order] = np.arange(len(order))
    return Matched(
        **{name: whole[name][back] for name in (*names, "stretch")},
        route_xy_m=whole["route_xy_m"],
        route_m=whole["route_m"],
        route_first=np.append(np.concatenate(starts), vertices),
    )


@dataclass(frozen=True)
class _Steps:
    """Steps between points that are used one after the other, by their row in the chunk."""

    before: np.ndarray
    after: np.ndarray
    length_m: np.ndarray
    least_m: np.ndarray  # the length without the 4σ² that independent errors of both points add to its square
    limit_m: np.ndarray  # no longer route is looked for
    farthest_m: np.ndarray  # no longer route is possible
    beta_m: np.ndarray


@dataclass(frozen=True)
class _Place:
    """Where a run that was cut goes on."""

    edge: int
    along_m: float
    forward: bool
    offset_m: float


@dataclass(frozen=True)
class _Legs:
    """Parts of routes along one edge each, in order; every step has at least one."""

    step: np.ndarray
    edge: np.ndarray
    start_m: np.ndarray
    stop_m: np.ndarray


class _Chunk:
    """Whole runs of points, in order, and what is found out about them."""

    def __init__(
        self,
        streets: Streets,
        search: RouteSearch,
        xy_m: np.ndarray,
        measure: np.ndarray,
        timed: bool,
        begins: np.ndarray,
        sigma_m: np.ndarray,
        radius_m: np.ndarray,
        settings: Matching,
    ) -> None:
        self.streets, self.search, self.settings = streets, search, settings
        self.xy_m, self.measure, self.timed, self.sigma_m, self.radius_m = xy_m, measure, timed, sigma_m, radius_m
        self.run = np.cumsum(begins)
        self.candidates: Candidates
        self.last = -1  # the last point used
        self.weight = sigma_m**-2.0
        self.ahead = np.zeros(len(xy_m), bool)
        # Chosen state (twice its candidate, one more when it travels backward), stretch and so on are kept per point: shape (n,).
        n = len(xy_m)
        self.chosen = np.full(n, -1)
        self.stretch = np.full(n, -1, np.int64)
        self.log_likelihood, self.confidence = np.full(n, np.nan), np.full(n, np.nan)

    def match(self, threads: int, progress: Progress, carried: _Place | None = None) -> Matched:
        """Do all of it; the first point is at `carried`, where that is given."""
        most = self.settings.candidates or 8
        self.candidates = self.streets.near(self.xy_m, self.radius_m, most, threads, span(progress, 0.0, 0.3))
        if carried is not None:
            self.candidates.edge[0], self.candidates.distance_m[0] = -1, np.inf
            self.candidates.edge[0, 0], self.candidates.along_m[0, 0] = carried.edge, carried.along_m
            self.candidates.distance_m[0, 0] = carried.offset_m
        on_road = self.candidates.edge[:, 0] >= 0
        used = on_road & ~self._close(on_road) if self.settings.skip_close else on_road.copy()
        edge = self.candidates.edge
        emission = emission_log(self.candidates.distance_m, self.sigma_m[:, None])
        ways = np.stack([self.streets.forward[edge], self.streets.backward[edge]], axis=-1)
        self._emission = np.where(ways, emission[:, :, None], -np.inf).reshape(len(edge), -1)
        if carried is not None:
            self._emission[0, np.arange(2 * most) != (0 if carried.forward else 1)] = -np.inf
            self.weight[0] = 1e12  # it stays where it is
        steps = self._steps(np.flatnonzero(used))
        how, transition = self._transitions(steps, span(progress, 0.3, 0.7))
        broken = self._viterbi(used, steps, transition, span(progress, 0.7, 0.85))
        outliers = self._outliers(used, steps, broken)
        if outliers.any():
            used &= ~outliers
            on_road &= ~outliers
            again = self._steps(np.flatnonzero(used))
            how, transition = self._renewed(steps, again, how, transition, progress)
            steps = again
            broken = self._viterbi(used, steps, transition, span(progress, 0.8, 0.85))
        self.last = int(np.flatnonzero(used)[-1]) if used.any() else -1
        return self._result(on_road, used, steps, how, broken, span(progress, 0.85, 1.0))

    def _close(self, on_road: np.ndarray) -> np.ndarray:
        """Points within 2σ of the last one used, but for the last of each run."""
        close = np.zeros(len(on_road), bool)
        rows = np.flatnonzero(on_road)
        last_x = last_y = math.inf
        last_run = -1
        columns = (rows, self.xy_m[rows, 0], self.xy_m[rows, 1], self.sigma_m[rows], self.run[rows])
        for row, x, y, sigma, run in zip(*(column.tolist() for column in columns)):
            if run == last_run and (x - last_x) ** 2 + (y - last_y) ** 2 < 4 * sigma**2:
                close[row] = True
            else:
                last_x, last_y, last_run = x, y, run
        last = np.ones(len(rows), bool)
        last[:-1] = self.run[rows[1:]] != self.run[rows[:-1]]
        close[rows[last]] = False
        return close

    def _steps(self, rows: np.ndarray) -> _Steps:
        """The steps between consecutive used points of a run, unless a silence lies between them."""
        linked = self.run[rows[1:]] == self.run[rows[:-1]]
        seconds = np.diff(self.measure[rows])
        if self.timed:
            linked &= seconds <= self.settings.max_gap_s
        before, after = rows[:-1][linked], rows[1:][linked]
        length = np.hypot(*(self.xy_m[after] - self.xy_m[before]).T)
        sigma = np.sqrt((self.sigma_m[before] ** 2 + self.sigma_m[after] ** 2) / 2)
        least = np.sqrt(np.maximum(length**2 - 4 * sigma**2, 0.0))
        beta = sigma if self.settings.beta_m is None else np.full(len(before), self.settings.beta_m)
        farthest = length + self.settings.max_detour_m
        if self.timed:
            slack = self.radius_m[before] + self.radius_m[after]
            farthest = np.minimum(farthest, self.settings.max_speed_m_s * seconds[linked] + slack)
        farthest[length > LONGEST_STEP_M] = 0.0
        first = (1 + _FIRST_SHARE) * length + np.maximum(_FIRST_BETAS * beta, _FIRST_M)
        return _Steps(before, after, length, least, np.minimum(first, farthest), farthest, beta)

    # Routes between candidates

    def _transitions(self, steps: _Steps, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
        """How each pair of states is connected, and its log probability, both shape (steps, 2k, 2k)."""
        route, how = self._routes(steps, steps.limit_m, span(progress, 0.0, 0.8))
        shut = np.flatnonzero(~np.isfinite(route).any(axis=(1, 2)) & (steps.farthest_m > steps.limit_m))
        if len(shut):
            few = _Steps(*(getattr(steps, name)[shut] for name in _Steps.__dataclass_fields__))
            route[shut], how[shut] = self._routes(few, few.farthest_m, span(progress, 0.8, 1.0))
        for start in range(0, len(route), _BLOCK):
            progress(1.0)
            part = slice(start, start + _BLOCK)
            how[part], route[part] = self._log_of(steps, part, how[part], route[part])
        return how, route

    def _log_of(self, steps: _Steps, part: slice, how: np.ndarray, route: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How each pair of states of some steps is connected when turning round is allowed too, and its log probability."""
        length, least, beta = (each[part, None, None] for each in (steps.length_m, steps.least_m, steps.beta_m))
        log = transition_log(length, route, beta, least)
        reached = how != _UNREACHED
        log[~reached] = -np.inf
        log[reached & (how >= _TURN_AT_NODE)] -= self.settings.turn_log
        # Turning round first, a state goes on as the other one on its edge does; that it must be open to both is in the emission.
        states = np.arange(log.shape[1]) ^ 1
        turned = log[:, states] - self.settings.turn_log
        better = turned > log
        return np.where(better, how[:, states] | _TURN_FIRST, how), np.where(better, turned, log)

    def _renewed(
        self, steps: _Steps, again: _Steps, how: np.ndarray, transition: np.ndarray, progress: Progress
    ) -> tuple[np.ndarray, np.ndarray]:
        """Transitions of the steps `again`: known ones are kept, new ones are searched."""
        n = len(self.xy_m)
        known, wanted = steps.before * n + steps.after, again.before * n + again.after
        place = np.minimum(np.searchsorted(known, wanted), max(len(known) - 1, 0))
        old = known[place] == wanted if len(known) else np.zeros(len(wanted), bool)
        shape = (len(wanted), *how.shape[1:])
        new_how, new_transition = np.empty(shape, np.int8), np.empty(shape)
        new_how[old], new_transition[old] = how[place[old]], transition[place[old]]
        fresh = _Steps(*(getattr(again, name)[~old] for name in _Steps.__dataclass_fields__))
        new_how[~old], new_transition[~old] = self._transitions(fresh, span(progress, 0.7, 0.8))
        return new_how, new_transition

    def _routes(self, steps: _Steps, limit_m: np.ndarray, progress: Progress) -> tuple[np.ndarray, np.ndarray]:
        """Length [m] of the route between each pair of states, inf beyond `limit_m`, and how it goes, both shape (steps, 2k, 2k)."""
        k = 2 * self.candidates.edge.shape[1]
        route = np.full((len(steps.before), k, k), np.inf)
        how = np.full(route.shape, _UNREACHED, np.int8)
        self._along_one_edge(steps, route, how)
        done = 0
        for group in self._groups(steps, limit_m):
            progress(done / len(route))
            self._through_nodes(steps, group, limit_m, route, how, progress, done / len(route))
            done += len(group)
        beyond = route > limit_m[:, None, None]
        route[beyond], how[beyond] = np.inf, _UNREACHED
        return route, how

    def _along_one_edge(self, steps: _Steps, route: np.ndarray, how: np.ndarray) -> None:
        """Fill in pairs on one edge in one direction; going back as far as noise explains is standing still."""
        edge, along = self.candidates.edge, self.candidates.along_m
        first, second = edge[steps.before][:, :, None], edge[steps.after][:, None, :]
        step, one, other = np.nonzero((first == second) & (first >= 0))
        on = edge[steps.before[step], one]
        way = along[steps.after[step], other] - along[steps.before[step], one]
        noise = _NOISE_SIGMAS * np.maximum(self.sigma_m[steps.before[step]], self.sigma_m[steps.after[step]])
        for backward, allowed in ((0, self.streets.forward), (1, self.streets.backward)):
            onward = -way if backward else way
            fine = allowed[on] & (onward >= -noise)
            place = step[fine], 2 * one[fine] + backward, 2 * other[fine] + backward
            route[place] = onward[fine]
            how[place] = _SAME_EDGE

    def _groups(self, steps: _Steps, limit_m: np.ndarray) -> Iterator[np.ndarray]:
        """Steps that begin near each other and have limits alike, some hundred at a time."""
        possible = np.flatnonzero(limit_m > 0)
        size = np.ceil(np.log2(np.maximum(limit_m[possible], 256.0)))
        side = _tile_side_m(2.0**size)
        tile = np.floor(self.xy_m[steps.before[possible]] / side[:, None])
        order = np.lexsort((tile[:, 1], tile[:, 0], size))
        key = np.column_stack([size, tile])[order]
        new = np.flatnonzero((key[1:] != key[:-1]).any(axis=1)) + 1
        for group in np.split(possible[order], new):
            for start in range(0, len(group), _STEPS_AT_ONCE):
                yield group[start : start + _STEPS_AT_ONCE]

    def _through_nodes(
        self,
        steps: _Steps,
        group: np.ndarray,
        limit_m: np.ndarray,
        route: np.ndarray,
        how: np.ndarray,
        progress: Progress,
        fraction: float,
    ) -> None:
        """Fill in routes that leave an edge at a node and enter another at a node, for the steps `group`."""
        streets, search = self.streets, self.search
        before, after = steps.before[group], steps.after[group]
        limit = float(limit_m[group].max())
        exit_node, rest = self._ends(before, leaving=True)
        entry_node, way_in = self._ends(after, leaving=False)
        exit_node = np.where(rest <= limit, exit_node, -1)
        entry_node = np.where(way_in <= limit, entry_node, -1)
        reach = limit + float(self.radius_m[before].max())
        low, high = self.xy_m[before].min(axis=0) - reach, self.xy_m[before].max(axis=0) + reach
        nodes = streets.nodes_within(low, high)
        if len(nodes) > MOST_NODES and len(group) > 4:  # of a dense network less at a time
            axis = int(np.ptp(self.xy_m[before, 1]) > np.ptp(self.xy_m[before, 0]))
            order = group[np.argsort(self.xy_m[before, axis], kind="stable")]
            for half in (order[: len(order) // 2], order[len(order) // 2 :]):
                self._through_nodes(steps, half, limit_m, route, how, progress, fraction)
            return
        if len(group) <= 4:  # of few steps only what lies between their ends: a sum of distances, as with an ellipse
            near = np.zeros(len(nodes), bool)
            for one, other, most in zip(before, after, limit_m[group] + self.radius_m[before] + self.radius_m[after]):
                to_both = np.hypot(*(streets.node_xy_m[nodes] - self.xy_m[one]).T)
                to_both += np.hypot(*(streets.node_xy_m[nodes] - self.xy_m[other]).T)
                near |= to_both <= most
            nodes = streets.nearest_nodes(nodes[near], (low + high) / 2)
        if not len(nodes):
            return
        search.enter(nodes)
        sources, row = np.unique(search.local(exit_node), return_inverse=True)
        targets, column = np.unique(search.local(entry_node), return_inverse=True)
        row, column = row.reshape(exit_node.shape), column.reshape(entry_node.shape)
        known, wanted = np.flatnonzero(sources >= 0), np.flatnonzero(targets >= 0)
        if not len(known) or not len(wanted):
            return
        table = np.full((len(sources), len(targets)), np.inf)
        for start, stop, lengths in search.distances(sources[known], limit):
            progress(fraction)
            table[known[start:stop, None], wanted] = lengths[:, targets[wanted]]
        flat, width = table.ravel(), len(targets)
        edge, other_edge = self.candidates.edge[before], self.candidates.edge[after]
        length = streets.length_m_of(edge)[:, :, None] - 1e-6
        length_other = streets.length_m_of(other_edge)[:, None, :] - 1e-6
        # Way between the exit in either direction and the entry in either direction, each shape (steps, k, k).
        ways = [
            [flat.take(row[:, :, None, out] * width + column[:, None, :, into]) for into in range(2)]
            for out in range(2)
        ]
        best, code = route[group], how[group]
        for out in range(2):
            for into in range(2):
                way = ways[out][into]
                total = way + rest[:, :, None, out] + way_in[:, None, :, into]
                # A way that goes back over the edge it left, or comes over the one it enters, turns round at the node.
                back = (way >= ways[1 - out][into] + length) | (way >= ways[out][1 - into] + length_other)
                if out != into:
                    back |= edge[:, :, None] == other_edge[:, None, :]
                old = best[:, out::2, into::2]
                better = total < old
                best[:, out::2, into::2] = np.where(better, total, old)
                new = np.where(back, np.int8(_THROUGH_NODES | _TURN_AT_NODE), np.int8(_THROUGH_NODES))
                code[:, out::2, into::2] = np.where(better, new, code[:, out::2, into::2])
        route[group], how[group] = best, code

    def _ends(self, rows: np.ndarray, leaving: bool) -> tuple[np.ndarray, np.ndarray]:
        """Nodes by which candidates are left (or reached) forward and backward, −1 for none, and the way there [m]; shape (n, k, 2)."""
        streets = self.streets
        edge, along = self.candidates.edge[rows], self.candidates.along_m[rows]
        there = edge >= 0
        ahead, behind = (streets.head, streets.tail) if leaving else (streets.tail, streets.head)
        remaining = streets.length_m_of(edge) - along
        node = np.stack(
            [
                np.where(there & streets.forward[edge], ahead[edge], -1),
                np.where(there & streets.backward[edge], behind[edge], -1),
            ],
            axis=-1,
        )
        way = np.stack([remaining, along] if leaving else [along, remaining], axis=-1)
        return node, np.where(node >= 0, way, np.inf)

    # The likeliest sequence

    def _viterbi(self, used: np.ndarray, steps: _Steps, transition: np.ndarray, progress: Progress) -> np.ndarray:
        """Choose a state for each used point, number the stretches, and return which steps are broken, shape (steps,)."""
        rows = np.flatnonzero(used)
        m, k = len(rows), self._emission.shape[1]
        emission = self._emission[rows]
        step_of = np.full(len(used), -1)
        step_of[steps.after] = np.arange(len(steps.after))
        step_to = step_of[rows].tolist()
        pointer = np.zeros((m, k), np.int64)
        columns = np.arange(k)
        broken = np.zeros(len(steps.after), bool)
        ends: list[tuple[int, int]] = []  # the last point of each stretch and its best state
        score = np.full(k, -np.inf)
        for point in range(m):
            if point % 1000 == 0:
                progress(0.5 * point / m)
            step = step_to[point]
            if step >= 0:
                reached = score[:, None] + transition[step]
                origin = reached.argmax(axis=0)
                following = reached[origin, columns] + emission[point]
                if following.max() > -np.inf:
                    pointer[point] = origin
                    score = following
                    continue
                broken[step] = True
            if point:
                ends.append((point - 1, int(score.argmax())))
            score = emission[point]
        if m:
            ends.append((m - 1, int(score.argmax())))
        chosen = np.zeros(m, np.int64)
        stretch = np.zeros(m, np.int64)
        start = 0
        back = pointer.tolist()
        picked = [0] * m
        for number, (last, state) in enumerate(ends):
            for point in range(last, start - 1, -1):
                picked[point] = state
                state = back[point][state]
            stretch[start : last + 1] = number
            start = last + 1
        chosen[:] = picked
        self.chosen[:], self.stretch[:] = -1, -1
        self.log_likelihood[:], self.confidence[:] = np.nan, np.nan
        self.chosen[rows], self.stretch[rows] = chosen, stretch
        linked = np.array(step_to, np.int64) if m else np.empty(0, np.int64)
        linked[linked >= 0] = np.where(broken[linked[linked >= 0]], -1, linked[linked >= 0])
        self._likelihoods(rows, chosen, emission, transition, linked, span(progress, 0.5, 1.0))
        return broken

    def _likelihoods(
        self,
        rows: np.ndarray,
        chosen: np.ndarray,
        emission: np.ndarray,
        transition: np.ndarray,
        linked: np.ndarray,
        progress: Progress,
    ) -> None:
        """Log-likelihood of the chosen places, and their posterior probability by the forward-backward algorithm."""
        m = len(rows)
        every = np.arange(m)
        log = emission[every, chosen]
        inner = np.flatnonzero(linked >= 0)
        log[inner] += transition[linked[inner], chosen[inner - 1], chosen[inner]]
        self.log_likelihood[rows] = log
        weight = np.exp(emission - emission.max(axis=1, keepdims=True)) if m else emission
        move = np.empty_like(transition)
        for start in range(0, len(move), _BLOCK):
            progress(0.0)
            part = transition[start : start + _BLOCK]
            move[start : start + _BLOCK] = np.exp(part - part.max(axis=(1, 2), keepdims=True, initial=-1e300))
        steps = linked.tolist()
        ahead = np.empty_like(weight)
        state = weight[0] if m else weight
        for point, step in enumerate(steps):
            if point % 1000 == 0:
                progress(0.5 * point / m)
            own = weight[point]
            state = (state @ move[step]) * own if step >= 0 else own
            total = state.sum()
            state = state / total if total > 0 else own / own.sum()
            ahead[point] = state
        behind = np.ones_like(weight)
        state = behind[0] if m else behind
        for point in range(m - 2, -1, -1):
            if point % 1000 == 0:
                progress(1 - 0.5 * point / m)
            step = steps[point + 1]
            if step >= 0:
                state = move[step] @ (weight[point + 1] * state)
                total = state.max()
                state = state / total if total > 0 else behind[-1]
                behind[point] = state
            else:
                state = behind[-1]
        posterior = ahead * behind
        total = posterior.sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            self.confidence[rows] = (posterior[every, chosen] + posterior[every, chosen ^ 1]) / total

    def _outliers(self, used: np.ndarray, steps: _Steps, broken: np.ndarray) -> np.ndarray:
        """Points of stretches of a point or two that no route connects with either side."""
        rows = np.flatnonzero(used)
        result = np.zeros(len(used), bool)
        if not broken.any():
            return result
        breaks_after, breaks_before = np.zeros(len(used), bool), np.zeros(len(used), bool)
        breaks_before[steps.after[broken]] = True
        breaks_after[steps.before[broken]] = True
        first = np.flatnonzero(np.diff(self.stretch[rows], prepend=-1))
        last = np.append(first[1:], len(rows)) - 1
        alone = (last - first < _OUTLIERS) & breaks_before[rows[first]] & breaks_after[rows[last]]
        sizes = last - first + 1
        # Between longer stretches only: a device that jumps at every point has no outliers.
        longer = np.concatenate([[False], sizes > _OUTLIERS, [False]])
        alone &= longer[:-2] & longer[2:]
        for one in np.flatnonzero(alone):
            result[rows[first[one] : last[one] + 1]] = True
        return result

    # Routes and places

    def _result(
        self,
        on_road: np.ndarray,
        used: np.ndarray,
        steps: _Steps,
        how: np.ndarray,
        broken: np.ndarray,
        progress: Progress,
    ) -> Matched:
        """Routes of the steps that hold, and the place of every point."""
        streets, n = self.streets, len(self.xy_m)
        rows = np.flatnonzero(used)
        edge, along = np.full(n, -1, np.int64), np.zeros(n)
        edge[rows] = self.candidates.edge[rows, self.chosen[rows] >> 1]
        along[rows] = self.candidates.along_m[rows, self.chosen[rows] >> 1]
        ahead = np.zeros(n, bool)
        ahead[rows] = self.chosen[rows] & 1 == 0
        self.ahead = ahead
        whole = ~broken
        before, after = steps.before[whole], steps.after[whole]
        code = how[whole, self.chosen[before], self.chosen[after]]
        self._smooth(along, ahead, before, after, code)
        legs, lost = self._legs(edge, along, ahead, before, after, code, progress)
        if len(lost):  # only where the cut to MOST_NODES differs: the path is split there
            after_rows = after[lost]
            for row in after_rows.tolist():
                self.stretch[row:][self.stretch[row:] >= 0] += 1
            kept = np.setdiff1d(np.arange(len(before)), lost)
            renumbered = np.full(len(before), -1)
            renumbered[kept] = np.arange(len(kept))
            before, after = before[kept], after[kept]
            legs = replace(legs, step=renumbered[legs.step])
        self._place_skipped(on_road & ~used, rows, edge, along, ahead, before, after, legs)
        there = np.flatnonzero(edge >= 0)
        xy = self.xy_m.copy()
        xy[there] = streets.points_at(edge[there], along[there])
        offset = np.full(n, np.nan)
        offset[there] = np.hypot(*(xy[there] - self.xy_m[there]).T)
        line = np.full(n, -1, np.int64)
        line[there] = np.where(ahead[there], streets.line_forward[edge[there]], streets.line_backward[edge[there]])
        route_xy, route_m, route_first = self._routes_of_stretches(rows, xy, before, after, legs)
        return Matched(
            xy, edge, along, ahead, line, offset, self.stretch, self.log_likelihood, self.confidence, route_xy, route_m,
            route_first,
        )  # fmt: skip

    def _smooth(
        self, along: np.ndarray, ahead: np.ndarray, before: np.ndarray, after: np.ndarray, code: np.ndarray
    ) -> None:
        """Where a device seems to go back on its edge without turning, put it where it never does, changing as little as possible.

        This is the isotonic regression of the places of one passage over an edge, with weights 1/σ².
        """
        stays = code == _SAME_EDGE
        steps = np.flatnonzero(stays)
        if not len(steps):
            return
        new = np.ones(len(steps), bool)
        new[1:] = (steps[1:] != steps[:-1] + 1) | (before[steps[1:]] != after[steps[:-1]])
        sign = np.where(ahead, 1.0, -1.0)
        wrong = (along[after[steps]] - along[before[steps]]) * sign[after[steps]] < 0
        passage = np.cumsum(new) - 1
        first = np.flatnonzero(new)
        stop = np.append(first[1:], len(steps))
        for one in np.unique(passage[wrong]).tolist():
            rows = np.append(before[steps[first[one]]], after[steps[first[one] : stop[one]]])
            along[rows] = sign[rows[0]] * _isotonic(sign[rows[0]] * along[rows], self.weight[rows])

    def _legs(
        self,
        edge: np.ndarray,
        along: np.ndarray,
        ahead: np.ndarray,
        before: np.ndarray,
        after: np.ndarray,
        code: np.ndarray,
        progress: Progress,
    ) -> tuple[_Legs, np.ndarray]:
        """The legs of all steps, and the steps whose route could not be found again."""
        streets = self.streets
        through = (code & _THROUGH_NODES).astype(bool)
        same, via = np.flatnonzero(~through), np.flatnonzero(through)
        out = np.where(ahead[before[via]] ^ (code[via] & _TURN_FIRST > 0), 0, 1)
        into = np.where(ahead[after[via]], 0, 1)
        first, second = edge[before[via]], edge[after[via]]
        length_first, length_second = streets.length_m_of(first), streets.length_m_of(second)
        exit_m, entry_m = np.where(out == 0, length_first, 0.0), np.where(into == 0, 0.0, length_second)
        exit_node = np.where(out == 0, streets.head[first], streets.tail[first])
        entry_node = np.where(into == 0, streets.tail[second], streets.head[second])
        between, lost = self._between(exit_node, entry_node, progress)
        keep = np.ones(len(via), bool)
        keep[lost] = False
        # Rank orders the legs of a step: leaving the first edge, arcs in between, entering the last.
        step = [same, via[keep], between.step if len(between.step) else np.empty(0, np.int64), via[keep]]
        step[2] = via[step[2]]
        rank = [np.zeros(len(same)), np.zeros(keep.sum()), np.ones(len(step[2])), np.full(keep.sum(), 2.0)]
        edges = [edge[before[same]], first[keep], between.edge, second[keep]]
        starts = [along[before[same]], along[before[via[keep]]], between.start_m, entry_m[keep]]
        stops = [along[after[same]], exit_m[keep], between.stop_m, along[after[via[keep]]]]
        step_, edge_, start_, stop_ = (np.concatenate(parts) for parts in (step, edges, starts, stops))
        order = np.lexsort((np.arange(len(step_)), np.concatenate(rank), step_))
        step_, edge_, start_, stop_ = step_[order], edge_[order], start_[order], stop_[order]
        # Empty legs say nothing, but a step without any other keeps its last.
        empty = start_ == stop_
        total = np.bincount(step_, weights=~empty, minlength=len(before))
        last = np.ones(len(step_), bool)
        last[:-1] = step_[1:] != step_[:-1]
        stay = ~empty | (last & (total[step_] == 0))
        return _Legs(step_[stay], edge_[stay], start_[stay], stop_[stay]), via[lost]

    def _between(self, tail: np.ndarray, head: np.ndarray, progress: Progress) -> tuple[_Legs, np.ndarray]:
        """Legs over whole edges from nodes `tail` to nodes `head`, by index into these, and the pairs no route was found for."""
        streets, search = self.streets, self.search
        n_nodes = len(streets.node_xy_m)
        pair, inverse = np.unique(tail * n_nodes + head, return_inverse=True)
        start, end = pair // n_nodes, pair % n_nodes
        apart = np.flatnonzero(start != end)
        arcs: list[list[int]] = [[] for _ in pair]
        lost = np.zeros(len(pair), bool)
        # The way there was found within the limits of a step: search as far as twice the distance, then up to the largest.
        away = np.hypot(*(streets.node_xy_m[start] - streets.node_xy_m[end]).T)
        longest = 2 * LONGEST_STEP_M + self.settings.max_detour_m
        todo, limit = apart, np.maximum(1.6 * away, 256.0)
        while len(todo):
            size = np.ceil(np.log2(limit[todo]))
            side = _tile_side_m(2.0**size)
            tile = np.floor(streets.node_xy_m[start[todo]] / side[:, None])
            order = np.lexsort((start[todo], tile[:, 1], tile[:, 0], size))
            key = np.column_stack([size, tile])[order]
            failed = []
            for number, group in enumerate(
                np.split(todo[order], np.flatnonzero((key[1:] != key[:-1]).any(axis=1)) + 1)
            ):
                reach = float(limit[group].max())
                places = streets.node_xy_m[start[group]]
                low, high = places.min(axis=0) - reach, places.max(axis=0) + reach
                search.enter(streets.nearest_nodes(streets.nodes_within(low, high), (low + high) / 2))
                sources, first = np.unique(start[group], return_index=True)
                for source, members in zip(sources, np.split(group, first[1:])):
                    progress(min(number / 1000, 1.0))
                    local = int(search.local(source))
                    paths = (
                        search.paths(local, search.local(end[members]), reach) if local >= 0 else [None] * len(members)
                    )
                    for member, path in zip(members.tolist(), paths):
                        if path is None:
                            failed.append(member)
                        else:
                            arcs[member] = [streets.arc_between(a, b) for a, b in zip(path[:-1], path[1:])]
            again = np.array(failed, np.int64)
            lost[again[limit[again] >= longest]] = True
            todo = again[limit[again] < longest]
            limit[todo] = np.minimum(3 * limit[todo], longest)
        count = np.array([len(each) for each in arcs], np.int64)
        flat = np.array([arc for each in arcs for arc in each], np.int64)
        begin = np.cumsum(count) - count
        many = count[inverse]
        step = np.repeat(np.arange(len(tail)), many)
        chosen = flat[np.arange(len(step)) - np.repeat(np.cumsum(many) - many, many) + np.repeat(begin[inverse], many)]
        edge, ahead = streets.arc_edge[chosen], streets.arc_forward[chosen]
        length = streets.length_m_of(edge)
        legs = _Legs(step, edge, np.where(ahead, 0.0, length), np.where(ahead, length, 0.0))
        return legs, np.flatnonzero(lost[inverse])

    def _place_skipped(
        self,
        skipped: np.ndarray,
        rows: np.ndarray,
        edge: np.ndarray,
        along: np.ndarray,
        ahead: np.ndarray,
        before: np.ndarray,
        after: np.ndarray,
        legs: _Legs,
    ) -> None:
        """Put points that were only skipped along the route between their neighbours, as far as they are along the straight line."""
        points = np.flatnonzero(skipped)
        if not len(points) or not len(rows):
            return
        previous = rows[np.maximum(np.searchsorted(rows, points) - 1, 0)]
        step_of = np.full(len(edge), -1)
        step_of[before] = np.arange(len(before))
        step = step_of[previous]
        self.stretch[points] = self.stretch[previous]
        edge[points], along[points], ahead[points] = edge[previous], along[previous], ahead[previous]
        between = step >= 0
        points, step, previous = points[between], step[between], previous[between]
        if not len(points):
            return
        line = self.xy_m[after[step]] - self.xy_m[previous]
        share = ((self.xy_m[points] - self.xy_m[previous]) * line).sum(axis=1) / np.maximum(
            (line**2).sum(axis=1), 1e-12
        )
        share = np.clip(share, 0.0, 1.0)
        # Never back: the largest share so far among those of the same step.
        share = np.maximum.accumulate(step + share) - step
        length = np.abs(legs.stop_m - legs.start_m)
        total = np.concatenate([[0.0], np.cumsum(length)])
        first = np.searchsorted(legs.step, step, side="left")
        stop = np.searchsorted(legs.step, step, side="right")
        goal = total[first] + np.clip(share, 0.0, 1.0) * (total[stop] - total[first])
        leg = np.clip(np.searchsorted(total, goal, side="right") - 1, first, stop - 1)
        onward = legs.stop_m[leg] >= legs.start_m[leg]
        edge[points] = legs.edge[leg]
        along[points] = legs.start_m[leg] + np.where(onward, 1.0, -1.0) * np.minimum(goal - total[leg], length[leg])
        ahead[points] = onward

    def _routes_of_stretches(
        self, rows: np.ndarray, xy: np.ndarray, before: np.ndarray, after: np.ndarray, legs: _Legs
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Vertices, measures and first vertices of the routes of all stretches."""
        streets = self.streets
        length = np.abs(legs.stop_m - legs.start_m)
        total = np.concatenate([[0.0], np.cumsum(length)])
        per_step = np.bincount(legs.step, weights=length, minlength=len(before))
        begin_of_step = total[np.searchsorted(legs.step, np.arange(len(before)))]
        base = streets.position_m[streets.first[legs.edge]]
        low, high = base + np.minimum(legs.start_m, legs.stop_m), base + np.maximum(legs.start_m, legs.stop_m)
        # An end of an edge has the position of its vertex exactly, so what lies strictly between is on this edge.
        high = np.where(
            np.maximum(legs.start_m, legs.stop_m) >= streets.length_m_of(legs.edge), streets.end_m[legs.edge], high
        )
        inner_from = np.searchsorted(streets.position_m, low, side="right")
        inner_to = np.maximum(np.searchsorted(streets.position_m, high, side="left"), inner_from)
        count = inner_to - inner_from
        leg = np.repeat(np.arange(len(length)), count)
        rank = np.arange(len(leg)) - np.repeat(np.cumsum(count) - count, count)
        onward = legs.stop_m >= legs.start_m
        vertex = np.where(onward[leg], inner_from[leg] + rank, inner_to[leg] - 1 - rank)
        inner_way = total[leg] + np.abs(streets.position_m[vertex] - base[leg] - legs.start_m[leg])
        end_xy = streets.points_at(legs.edge, legs.stop_m)
        # Vertices: those within legs, the ends of legs, and the first point of each stretch.
        first = np.flatnonzero(np.diff(self.stretch[rows], prepend=-1))
        heads = rows[first]
        leg_of_head = np.searchsorted(legs.step, np.searchsorted(before, heads))
        key_leg = np.concatenate([leg_of_head, leg, np.arange(len(length))])
        key_rank = np.concatenate([np.full(len(heads), -1), rank, count])
        step = np.concatenate([np.full(len(heads), -1), legs.step[leg], legs.step])
        way = np.concatenate([np.zeros(len(heads)), inner_way, total[1:]])
        points = np.concatenate([xy[heads], streets.xy_m[vertex], end_xy])
        measure = np.empty(len(points))
        measure[: len(heads)] = self.measure[heads]
        inner = np.arange(len(heads), len(points))
        of = step[inner]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.clip((way[inner] - begin_of_step[of]) / per_step[of], 0.0, 1.0)
        share = np.where(per_step[of] > 0, share, 1.0)
        measure[inner] = self.measure[before[of]] + share * (self.measure[after[of]] - self.measure[before[of]])
        stretch = np.concatenate([self.stretch[heads], self.stretch[before[of]]])
        last_leg = np.ones(len(length), bool)
        last_leg[:-1] = legs.step[1:] != legs.step[:-1]
        exact = len(heads) + len(leg) + np.flatnonzero(last_leg)
        measure[exact] = self.measure[after[legs.step[last_leg]]]
        points[exact] = xy[after[legs.step[last_leg]]]
        order = np.lexsort((key_rank, key_leg, stretch))
        points, measure, stretch = points[order], measure[order], stretch[order]
        return _without_repeats(points, measure, stretch, int(self.stretch.max(initial=-1)) + 1)


def _isotonic(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The nearest sequence that never falls, in weighted least squares (pool adjacent violators), shape (n,)."""
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), weights.tolist()):
        mean, total, count = value, weight, 1
        while pools and pools[-1][0] > mean:
            other, other_total, other_count = pools.pop()
            mean = (mean * total + other * other_total) / (total + other_total)
            total, count = total + other_total, count + other_count
        pools.append((mean, total, count))
    return np.repeat([pool[0] for pool in pools], [pool[2] for pool in pools])


def _without_repeats(
    points: np.ndarray, measure: np.ndarray, stretch: np.ndarray, stretches: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Leave out vertices at the place of both their neighbours, and those that repeat place and measure; with CSR starts per stretch."""
    same = (stretch[1:] == stretch[:-1]) & (np.abs(points[1:] - points[:-1]) < 1e-6).all(axis=1)
    idle = np.zeros(len(points), bool)
    idle[1:-1] = same[:-1] & same[1:]
    idle[1:] |= same & (measure[1:] == measure[:-1])
    points, measure, stretch = points[~idle], measure[~idle], stretch[~idle]
    return points, measure, np.searchsorted(stretch, np.arange(stretches + 1))
