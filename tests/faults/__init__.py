"""The fault suite's own tests: who checks has to be checked."""
