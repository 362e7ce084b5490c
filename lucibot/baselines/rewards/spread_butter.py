# Written by the authors of LuciBot in the style of what a language model is asked for; no model wrote it.
# It knows the scene as its prompt tells it, and nothing of how success is judged.


def reward(scene):
    """The butter is flat and wide, and stays on the slice."""
    butter = scene.particles("butter")
    low, high = scene.start_box("bread")
    on = ((butter[:, :2] > low[:2]) & (butter[:, :2] < high[:2])).all(1).mean()
    cells = np.floor(butter[:, :2] / 0.004).astype(int)
    covered = len(np.unique(cells, axis=0)) * 0.004**2
    slice_area = np.prod(high[:2] - low[:2])
    height = butter[:, 2].mean() - high[2]
    return covered / slice_area + on - 10.0 * max(0.0, height)
