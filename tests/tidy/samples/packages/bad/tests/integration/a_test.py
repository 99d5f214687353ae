import shutil

import a_pb2_grpc

PROGRAMS = [shutil.which("nginx"), a_pb2_grpc]
