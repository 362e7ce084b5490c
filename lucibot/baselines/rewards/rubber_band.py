# Written by the authors of LuciBot in the style of what a language model is asked for; no model wrote it.
# It knows the scene as its prompt tells it, and nothing of how success is judged.


def reward(scene):
    """The band reaches around the outer sides of both sticks, at less than their height."""
    band = scene.box("band")
    left, right = scene.start_box("left_stick"), scene.start_box("right_stick")
    missing = max(0.0, band[0, 0] - left[0, 0]) + max(0.0, right[1, 0] - band[1, 0])
    missing += max(0.0, band[0, 1] - left[0, 1]) + max(0.0, left[1, 1] - band[1, 1])
    too_high = max(0.0, band[1, 2] - left[1, 2])
    return -missing - too_high
