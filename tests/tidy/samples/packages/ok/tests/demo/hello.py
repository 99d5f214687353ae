PROGRAM = ["publish"]
