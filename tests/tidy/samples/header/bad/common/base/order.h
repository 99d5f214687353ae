/*
 * order: what it is.
 *
 * Threads    any.
 * Shape      a shape.
 */
#pragma once
