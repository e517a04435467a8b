"""Measurement reports (MRs) become trajectories: records, localizers, filters, map matching, and how far off they are."""
