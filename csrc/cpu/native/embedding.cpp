#include "embedding.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>

namespace de {

constexpr int64_t GRAIN = 8192;  // elements of an item

static void copy_row(const EmbeddingParams& p, int64_t i) {
  const int64_t label = p.labels[i];
  if (label < 0 || label >= p.rows)
    throw std::out_of_range("label " + std::to_string(label) + " at place " + std::to_string(i) +
                            " is outside of the embedding's " + std::to_string(p.rows) + " rows");
  std::memcpy(p.out + i * p.out_row, p.table + label * p.table_row, p.features * sizeof(float));
}

Task embedding_task(const EmbeddingParams& p, int64_t) {
  const int64_t rows = std::max<int64_t>(1, GRAIN / std::max<int64_t>(1, p.features));
  Task task;
  task.items = (p.count + rows - 1) / rows;
  task.work = p.count * p.features;
  task.run = [p, rows](int64_t item, float*) {
    for (int64_t i = item * rows; i < std::min((item + 1) * rows, p.count); ++i) copy_row(p, i);
  };
  return task;
}

}  // namespace de
