"""Peer: LitServe with its dynamic batching. MODEL=folder PORT=n"""

import os
from pathlib import Path

import litserve
from encoder import Encoder


class Api(litserve.LitAPI):
    def setup(self, device):
        self.encoder = Encoder(Path(os.environ["MODEL"]), threads=0)

    def decode_request(self, request):
        return request["input"]

    def batch(self, inputs):
        return inputs

    def predict(self, texts):
        return self.encoder(texts).tolist()

    def unbatch(self, output):
        return output

    def encode_response(self, vector):
        return {"data": [{"index": 0, "embedding": vector}]}


if __name__ == "__main__":
    api = Api(max_batch_size=32, batch_timeout=0.002, api_path="/v1/embeddings")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, healthcheck_path="/health")
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False, log_level="warning")
