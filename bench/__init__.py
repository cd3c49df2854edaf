"""Measurements and the fault suite: what Logpost is, shown instead of said."""
