"""Antennas, propagation and the network simulator that makes ground truth."""
