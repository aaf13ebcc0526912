"""Segment an image without u2pl and PyTorch: python onnx_predict.py model.onnx image.jpg mask.png"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main(model: str, image: str, out: str) -> None:
    with open(f"{model}.json") as file:
        about = json.load(file)
    pixels = np.asarray(ImageOps.exif_transpose(Image.open(image)).convert("RGB"), dtype=np.float32) / 255
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (scores,) = session.run([about["output"]["name"]], {about["input"]["name"]: pixels.transpose(2, 0, 1)[None]})
    mask = Image.fromarray(scores[0].argmax(axis=0).astype(np.uint8), mode="P")
    mask.putpalette([value for colour in about["palette"] for value in colour])
    mask.save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
