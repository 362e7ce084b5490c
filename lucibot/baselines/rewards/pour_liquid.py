# Written by the authors of LuciBot in the style of what a language model is asked for; no model wrote it.
# It knows the scene as its prompt tells it, and nothing of how success is judged.


def reward(scene):
    """As much of the liquid as can be is within the glass, and the bottle stands where it stood."""
    liquid = scene.particles("liquid")
    low, high = scene.start_box("glass")
    inside = ((liquid > low) & (liquid < high)).all(1).mean()
    glass = (low + high) / 2
    glass[2] = high[2]
    distance = np.linalg.norm(liquid - glass, axis=1).mean()
    bottle = np.linalg.norm(scene.box("bottle").mean(0) - scene.start_box("bottle").mean(0))
    upright = scene.rotation("bottle")[2, 2]
    return inside - distance - 0.5 * bottle + 0.1 * upright
