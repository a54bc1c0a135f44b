"""Peer: FastAPI over ONNX Runtime, one inference a request, no batching. MODEL=folder"""

import os
from pathlib import Path

from encoder import Encoder
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
encoder = Encoder(Path(os.environ["MODEL"]), threads=0)


class Request(BaseModel):
    input: str


@app.get("/health")
def health():
    return {}


@app.post("/v1/embeddings")
def embeddings(request: Request):
    return {"data": [{"index": 0, "embedding": encoder([request.input])[0].tolist()}]}
