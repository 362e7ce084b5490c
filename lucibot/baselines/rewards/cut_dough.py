# Written by the authors of LuciBot in the style of what a language model is asked for; no model wrote it.
# It knows the scene as its prompt tells it, and nothing of how success is judged.


def reward(scene):
    """The dough is parted, the knife is beside the board again."""
    x = np.sort(scene.particles("dough")[:, 0])
    gap = np.diff(x[len(x) // 5 : -(len(x) // 5)]).max()
    board = scene.start_box("board")
    knife = scene.position("knife")
    aside = max(0.0, board[1, 0] - knife[0])
    resting = max(0.0, scene.box("knife")[0, 2] - board[0, 2])
    return 10.0 * min(gap, 0.03) - aside - resting
