# Written by the authors of LuciBot in the style of what a language model is asked for; no model wrote it.
# It knows the scene as its prompt tells it, and nothing of how success is judged.


def reward(scene):
    """The yellow cup stands in the red one: the same axis, close to its floor, both upright."""
    red, yellow = scene.position("red_cup"), scene.position("yellow_cup")
    aside = np.linalg.norm(yellow[:2] - red[:2])
    above = abs(yellow[2] - red[2] - 0.02)
    tilt = 2.0 - scene.rotation("red_cup")[2, 2] - scene.rotation("yellow_cup")[2, 2]
    return -5.0 * aside - 2.0 * above - 0.1 * tilt
