# Written by the authors of LuciBot in the style of what a language model is asked for; no model wrote it.
# It knows the scene as its prompt tells it, and nothing of how success is judged.


def reward(scene):
    """Sand is within the spoon's box, above the walls of the box that it came from."""
    sand = scene.particles("sand")
    low, high = scene.box("spoon")
    high = high + np.array([0.0, 0.0, 0.02])
    carried = ((sand > low) & (sand < high)).all(1).mean()
    wall = scene.start_box("box")[1, 2]
    height = min(scene.position("spoon")[2], wall + 0.05)
    box = scene.start_box("box")
    outside = ((sand[:, :2] < box[0, :2]) | (sand[:, :2] > box[1, :2])).any(1).mean()
    return 5.0 * carried + 2.0 * height - outside
