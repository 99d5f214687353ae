/*
 * ports: free ports for servers of tests that run beside each other.
 *
 * Threads    one thread asks.
 */
#pragma once

#include <stdint.h>

/* A loopback port that nothing listens on, and that no process that asks here, or in trilane.py,
 * was given; it is this process's until it ends. Below those that the kernel gives to clients. */
uint16_t test_free_port(void);

/* A loopback port that is taken and that nobody listens on: who connects to it is refused. The
 * socket that has it; close() gives it back. */
int test_deaf_port(uint16_t *out_port);
