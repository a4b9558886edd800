// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// The numeric library: everything from core to eval. Files and tokenizers come with hub.hpp.

#include "ropewalk/attention/attention.hpp"
#include "ropewalk/attention/masks.hpp"
#include "ropewalk/core/thread_pool.hpp"
#include "ropewalk/eval/perplexity.hpp"
#include "ropewalk/model/generate.hpp"
#include "ropewalk/rope.hpp"
#include "ropewalk/rope/rotate.hpp"
