// SPDX-License-Identifier: Apache-2.0
#pragma once
/// \file
/// Umbrella of rope/: policies, plans, rows and maps, without the rotation kernel
/// (rope/rotate.hpp).

#include "ropewalk/rope/any_frequency.hpp"
#include "ropewalk/rope/concepts.hpp"
#include "ropewalk/rope/frequency_plan.hpp"
#include "ropewalk/rope/pair_layout.hpp"
#include "ropewalk/rope/position_map.hpp"
#include "ropewalk/rope/query_scale.hpp"
#include "ropewalk/rope/rope_spec.hpp"
#include "ropewalk/rope/rotary_rows.hpp"
