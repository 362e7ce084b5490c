"""Asks WiLoR for the hands of a video; runs in WiLoR's own environment, in the folder of its checkout.

    python wilor_driver.py VIDEO KEYPOINTS HANDS LEAST_SCORE

It imports nothing of LuciBot, and writes the npz that `lucibot.providers.hand.command` reads.
"""

from __future__ import annotations

import sys

import cv2
import numpy as np

KEYPOINTS = 21
PADDING = 2.0
"""By how much a detected box is enlarged, as in WiLoR's own demo."""


def main(video: str, out: str, most: int, least_score: float) -> None:
    sys.path.insert(0, "")
    # Since version 2.6 torch loads nothing but tensors unless told otherwise; the checkpoints of the
    # detector and of the model hold their settings, too.
    import torch

    load = torch.load
    torch.load = lambda *a, **k: load(*a, **{"weights_only": False, **k})
    from ultralytics import YOLO
    from wilor.models import load_wilor

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, settings = load_wilor(
        checkpoint_path="./pretrained_models/wilor_final.ckpt",
        cfg_path="./pretrained_models/model_config.yaml",
    )
    model = model.to(device).eval()
    detector = YOLO("./pretrained_models/detector.pt").to(device)
    found = [
        hands_of(frame, model, settings, detector, device, most, least_score)
        for frame in frames_of(video)
    ]
    shape = (len(found), most)
    told = {
        "keypoints_px": np.full((*shape, KEYPOINTS, 2), np.nan, np.float32),
        "keypoints_m": np.full((*shape, KEYPOINTS, 3), np.nan, np.float32),
        "score": np.zeros(shape, np.float32),
        "side": np.full(shape, "unknown"),
    }
    for t, hands in enumerate(found):
        for m, hand in enumerate(hands):
            for name, value in hand.items():
                told[name][t, m] = value
    np.savez(out, **told)


def frames_of(video: str):
    """Frames (H, W, 3) uint8 BGR, which is what both networks take."""
    reader = cv2.VideoCapture(video)
    if not reader.isOpened():
        raise SystemExit(f"{video} cannot be opened")
    while True:
        there, frame = reader.read()
        if not there:
            return
        yield frame


def hands_of(frame, model, settings, detector, device, most: int, least_score: float) -> list[dict]:
    """Up to `most` hands of a frame, the surest first."""
    import torch
    from wilor.datasets.vitdet_dataset import ViTDetDataset
    from wilor.utils import recursive_to

    seen = detector(frame, conf=least_score, verbose=False)[0].boxes
    boxes, scores = seen.xyxy.cpu().numpy(), seen.conf.cpu().numpy()
    right = seen.cls.cpu().numpy()
    order = np.argsort(-scores)[:most]
    if len(order) == 0:
        return []
    cut = ViTDetDataset(settings, frame, boxes[order], right[order], rescale_factor=PADDING)
    batches = torch.utils.data.DataLoader(cut, batch_size=len(order), shuffle=False, num_workers=0)
    batch = recursive_to(next(iter(batches)), device)
    with torch.no_grad():
        out = model(batch)
    focal = float(settings.EXTRA.FOCAL_LENGTH) / float(settings.MODEL.IMAGE_SIZE)
    found = []
    for n, k in enumerate(order):
        is_right = float(batch["right"][n])
        joints = out["pred_keypoints_3d"][n][:KEYPOINTS].float().cpu().numpy()
        camera = out["pred_cam"][n].float().cpu().numpy()
        if is_right < 0.5:
            # The network sees right hands alone: left ones were mirrored for it.
            joints[:, 0] *= -1
            camera[1] *= -1
        pixels = projected(
            joints, camera, batch["box_center"][n].float().cpu().numpy(),
            float(batch["box_size"][n]), batch["img_size"][n].float().cpu().numpy(), focal,
        )  # fmt: skip
        found.append(
            {
                "keypoints_px": pixels, "keypoints_m": joints - joints[:1],
                "score": float(scores[k]), "side": "right" if is_right >= 0.5 else "left",
            }
        )  # fmt: skip
    return found


def projected(joints, camera, centre, size: float, picture, focal: float) -> np.ndarray:
    """(21, 2) pixels of joints (21, 3) [m].

    Args:
        camera: scale and shift (3,) of the weak-perspective camera of the cut-out.
        centre, size: of the square cut-out [pixels].
        picture: width and height of the whole.
        focal: focal length as a share of the picture's longer side.
    """
    f = focal * float(max(picture))
    scale = size * camera[0] + 1e-9
    middle = np.asarray(picture, np.float64) / 2
    shift = np.array([
        camera[1] + 2 * (centre[0] - middle[0]) / scale,
        camera[2] + 2 * (centre[1] - middle[1]) / scale,
        2 * f / scale,
    ])  # fmt: skip
    points = joints + shift
    return f * points[:, :2] / points[:, 2:] + middle


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
