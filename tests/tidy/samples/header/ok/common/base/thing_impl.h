/* thing_impl: what two files share. */
#pragma once
