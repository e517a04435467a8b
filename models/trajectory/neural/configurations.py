"""Table 5 of the DeepLoc paper: the configurations of its CNN."""

from __future__ import annotations

#: Side of the input tensor, and of each convolution its kernel, filters, and whether a 2 × 2 max pooling follows. The text of section
#: 5.3 has the sizes of the first two the other way round; we follow the table, whose second row repeats the CNN's errors of Table 4.
CONFIGURATIONS: dict[int, tuple[int, tuple[tuple[int, int, bool], ...]]] = {
    1: (50, ((5, 256, True), (5, 128, True), (3, 64, True), (3, 32, False))),
    2: (100, ((5, 256, True), (5, 128, True), (3, 64, True), (3, 32, False))),
    3: (100, ((9, 256, True), (5, 128, True), (3, 64, True), (3, 32, False))),
    4: (100, ((5, 512, True), (5, 256, True), (5, 128, True), (3, 64, True), (3, 32, False))),
    5: (100, ((5, 256, True), (5, 128, True), (3, 64, True))),
}
#: No reduced layer has fewer filters.
LEAST_FILTERS = 8
