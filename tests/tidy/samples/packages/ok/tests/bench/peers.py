PEERS = {"haproxy": ["haproxy", "-db"]}
