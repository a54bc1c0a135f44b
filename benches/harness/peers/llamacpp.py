"""Peer: llama.cpp's own server (slots, continuous batching) from the xllamacpp wheel. MODEL.gguf PORT SLOTS CONTEXT"""

import os
import signal
import sys

import xllamacpp

model, (port, slots, context) = sys.argv[1], map(int, sys.argv[2:5])
parameters = xllamacpp.CommonParams()
parameters.model.path = model
parameters.hostnames, parameters.port = ["127.0.0.1"], port
parameters.n_parallel = slots
parameters.n_ctx = context * slots
parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = os.cpu_count()
parameters.warmup = True
server = xllamacpp.Server(parameters)
print(server.listening_address, flush=True)
signal.sigwait({signal.SIGTERM, signal.SIGINT})
