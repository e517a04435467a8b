"""Landmark-assisted tracking: the look-up table, candidates, sensibility, the Time-Forwarding Graph (TFG), and landmarks."""
