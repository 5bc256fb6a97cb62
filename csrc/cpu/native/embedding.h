// Rows of a table by whole labels.
#pragma once
#include "task.h"

namespace de {

// out row i = table row labels[i]. A label outside of the table throws std::out_of_range (IndexError).
struct EmbeddingParams {
  const float* table = nullptr;
  const int64_t* labels = nullptr;
  float* out = nullptr;
  int64_t rows = 0, features = 0, count = 0;  // of the table, of a row, of labels
  int64_t table_row = 0, out_row = 0;         // elements from row to row
};

Task embedding_task(const EmbeddingParams& p, int64_t threads);

}  // namespace de
