"""
A web service around one ONNX file
==================================

This example serves a model that :func:`sktransfer.export.export_onnx` has written. The service
needs neither torch nor scikit-learn nor sktransfer, so it fits into a small container:

.. code-block:: shell

    pip install fastapi numpy onnxruntime pillow uvicorn
    python serve.py model.onnx
    curl --data-binary @image.jpg "http://127.0.0.1:8000/predict?k=3"

The answer has the most probable classes of the image, best first. An upload that is too large,
broken or no image is refused with a 4xx status and the reason. The service prepares images with
Pillow in the way that the file asks for.
"""

# sphinx_gallery_thumbnail_path = "images/sample.jpg"

import argparse
import json
import threading
from io import BytesIO

import numpy as np
import onnxruntime
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool
from PIL import Image, ImageOps

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")

# %%
# Prepare an image
# ----------------
#
# The metadata of the file say how each input is prepared: the shorter side is resized to
# ``resize_size`` and the center is cropped, or the whole image is squashed if that is null.


def decode(data, how, max_pixels):
    """Return the pixels (S, S, 3) of an encoded image, as one input of the file takes them."""
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > max_pixels:
            raise HTTPException(413, f"The image has more than {max_pixels:,} pixels.")
        side, short = how["image_size"], how["resize_size"]
        if image.format in ("JPEG", "MPO") and how["decoding"] == "fast":
            needed = 2 * (short or side)
            if min(image.size) >= 2 * needed:
                image.draft(None, (needed, needed))
        if image.mode.startswith("I"):  # 16 bits
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        image = ImageOps.exif_transpose(image).convert("RGB")
    width, height = side, side
    if short is not None:
        long = int(short * max(image.size) / min(image.size))
        if short * long > max_pixels:
            raise HTTPException(422, "The image is too elongated. Crop it first.")
        width, height = (short, long) if image.width <= image.height else (long, short)
    resampling = Image.Resampling[how["interpolation"].upper()]
    image = image.resize((width, height), resampling)
    left, top = round((width - side) / 2), round((height - side) / 2)
    return np.asarray(image.crop((left, top, left + side, top + side)))


# %%
# Answer requests
# ---------------


def make_app(file, max_bytes=10_000_000, max_pixels=50_000_000, n_threads=0):
    """Return a FastAPI application that serves an ONNX file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads  # 0: all cores
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map["sktransfer"])
    outputs = [output.name for output in session.get_outputs()]
    one_at_a_time = threading.Lock()  # the session uses all cores, and decoding much memory
    app = FastAPI(title="Image classifier")

    def predict(data):
        with one_at_a_time:
            try:
                inputs = about["inputs"].items()
                feed = {name: decode(data, how, max_pixels)[None] for name, how in inputs}
            except HTTPException:
                raise
            except Image.UnidentifiedImageError as error:
                names = ", ".join(FORMATS)
                raise HTTPException(415, f"This is no image of {names}.") from error
            except Exception as error:  # Pillow's decoders raise many
                raise HTTPException(422, f"The image is broken: {error}") from error
            return dict(zip(outputs, session.run(None, feed), strict=True))

    @app.get("/")
    def describe():
        """Return the classes and the limits."""
        return {"classes": about["classes"], "max_bytes": max_bytes, "max_pixels": max_pixels}

    @app.post("/predict")
    async def top_k(request: Request, k: int = Query(5, ge=1)):
        """Return the k most probable classes of the image in the body of the request."""
        data = bytearray()
        async for chunk in request.stream():  # stops reading at the limit
            data += chunk
            if len(data) > max_bytes:
                raise HTTPException(413, f"The upload has more than {max_bytes:,} bytes.")
        if not data:
            raise HTTPException(422, "The body is empty. Send the bytes of an image.")
        got = await run_in_threadpool(predict, bytes(data))
        answer = {name: np.asarray(values[0]).tolist() for name, values in got.items()}
        if "probabilities" in answer:
            pairs = zip(about["classes"], answer.pop("probabilities"), strict=True)
            best = sorted(pairs, key=lambda pair: -pair[1])[:k]
            answer["top"] = [{"label": name, "probability": value} for name, value in best]
        return answer

    return app


if __name__ == "__main__":
    import uvicorn

    parser = argparse.ArgumentParser(description="Serve an ONNX file of sktransfer.")
    parser.add_argument("file")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--max-bytes", type=int, default=10_000_000)
    parser.add_argument("--max-pixels", type=int, default=50_000_000)
    arguments = parser.parse_args()
    app = make_app(arguments.file, arguments.max_bytes, arguments.max_pixels)
    uvicorn.run(app, host=arguments.host, port=arguments.port)
