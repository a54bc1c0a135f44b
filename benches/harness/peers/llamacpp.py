"""Peer: llama.cpp's own server (slots, continuous batching) from the xllamacpp wheel. MODEL.gguf PORT SLOTS"""

import signal
import sys

import xllamacpp

model, port, slots = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
parameters = xllamacpp.CommonParams()
parameters.model.path = model
parameters.hostnames, parameters.port = ["127.0.0.1"], port
parameters.n_parallel = slots
parameters.n_ctx = 512 * slots
parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 2
parameters.warmup = True
server = xllamacpp.Server(parameters)
print(server.listening_address, flush=True)
signal.sigwait({signal.SIGTERM, signal.SIGINT})
