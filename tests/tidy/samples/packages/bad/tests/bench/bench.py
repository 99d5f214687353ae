def import_curl():
    return ["curl", "-sS"]
