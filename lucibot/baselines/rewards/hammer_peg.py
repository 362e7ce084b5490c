# Written by the authors of LuciBot in the style of what a language model is asked for; no model wrote it.
# It knows the scene as its prompt tells it, and nothing of how success is judged.


def reward(scene):
    """The peg's head comes down onto the block, then the hammer lies on the table."""
    peg, block = scene.box("peg"), scene.box("block")
    above = max(0.0, peg[1, 2] - block[1, 2])
    hammer = max(0.0, scene.box("hammer")[0, 2] - scene.start_box("table")[1, 2])
    return -10.0 * above - 0.5 * hammer
