"""The fault suite: real servers, real faults, a recorded history, and a checker that believes nobody."""
