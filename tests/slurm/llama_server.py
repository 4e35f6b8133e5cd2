"""llama.cpp's HTTP server with SmolLM2 on $PORT, in place of vLLM: LLM_COMMAND="python tests/slurm/llama_server.py"."""

import os
import threading

import xllamacpp

from project.config.compose import load_config
from project.llm.engines.llamacpp import model_file

parameters = xllamacpp.CommonParams()
parameters.model.path = str(model_file(load_config(["llm=smollm2"]).llm))
parameters.n_ctx, parameters.n_parallel, parameters.verbosity = 4096, 2, -1
parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
parameters.hostnames, parameters.port = ["0.0.0.0"], int(os.environ["PORT"])
server = xllamacpp.Server(parameters)
threading.Event().wait()
