# Written by the authors of LuciBot in the style of what a language model is asked for; no model wrote it.
# It knows the scene as its prompt tells it, and nothing of how success is judged.


def reward(scene):
    """The brown mochi rises from the slate, with the fork under it."""
    mochi = scene.particles("brown_mochi")
    start = scene.start_box("brown_mochi").mean(0)
    rise = mochi[:, 2].mean() - start[2]
    near = np.linalg.norm(scene.position("fork") - mochi.mean(0))
    others = 0.0
    for name in ("green_mochi", "pink_mochi"):
        moved = scene.particles(name).mean(0) - scene.start_box(name).mean(0)
        others += np.linalg.norm(moved[:2])
    return 10.0 * min(rise, 0.1) - near - others
