/*
 * other: what it is.
 */
#pragma once
