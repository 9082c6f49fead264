// SPDX-License-Identifier: Apache-2.0
// Symbols that libembedcore keeps for the bindings of the same build; nobody else may use them.
#pragma once

#define EC_INTERNAL __attribute__((visibility("default")))
